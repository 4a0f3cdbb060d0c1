"""The contexts a user enters: trace, invoke, scan."""
