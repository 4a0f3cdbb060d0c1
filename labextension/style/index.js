import './base.css';
import './tree.css';
import './cards.css';
import './results.css';
import './views.css';
