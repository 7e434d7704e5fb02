//! What `top` knows and what its keys do.

use std::cmp::Reverse;
use std::collections::HashMap;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::SortKey;
use crate::capabilities::CapsInfo;
use crate::control::{TopInfo, TopListing};

/// What the daemon is to be asked next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// All containers.
    All,
    /// One of them, by its whole id.
    One(String),
}

/// What follows from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing but that the view is drawn anew.
    Stay,
    /// The daemon is asked at once.
    Ask,
    /// The end.
    Quit,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Page {
    /// All containers.
    List,
    /// One of them.
    Detail(Box<Detail>),
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Detail {
    /// Its whole id.
    pub(super) id: String,
    /// What came; the last, if it is gone.
    pub(super) info: Option<TopInfo>,
    /// What is known of its capabilities.
    pub(super) caps: Option<CapsInfo>,
    /// It was not among what came last.
    pub(super) gone: bool,
    /// Lines that are scrolled away.
    pub(super) scrolled: u16,
}

/// Everything that the view is drawn from.
#[derive(Debug)]
pub(super) struct App {
    listing: TopListing,
    /// Attempts of each container at the time before, and that time.
    before: (HashMap<String, u64>, u64),
    /// Attempts in a second.
    rates: HashMap<String, f64>,
    pub(super) sort: SortKey,
    /// The chosen container, which stays the chosen one when the order changes.
    chosen: Option<String>,
    /// The first that is shown.
    pub(super) first: usize,
    /// Rows of a page, as last drawn.
    pub(super) page_rows: usize,
    pub(super) page: Page,
    pub(super) help: bool,
    /// Why the daemon did not answer last.
    pub(super) error: Option<String>,
    /// Whether keys are shown: there is somebody to press them.
    pub(super) keys: bool,
}

impl App {
    /// The view of a first answer.
    pub(super) fn new(listing: TopListing, sort: SortKey) -> Self {
        let mut app = App {
            before: (HashMap::new(), listing.up_ms),
            listing: TopListing::default(),
            rates: HashMap::new(),
            sort,
            chosen: None,
            first: 0,
            page_rows: 1,
            page: Page::List,
            help: false,
            error: None,
            keys: true,
        };
        app.update(listing);
        app.chosen = None;
        app
    }

    pub(super) fn listing(&self) -> &TopListing {
        &self.listing
    }

    /// Lines that a view takes that shows every container.
    pub(super) fn rows_for_all(&self) -> u16 {
        u16::try_from(self.listing.containers.len()).unwrap_or(u16::MAX).saturating_add(3)
    }

    /// The daemon answered.
    pub(super) fn update(&mut self, listing: TopListing) {
        self.error = None;
        let (before, at) = &self.before;
        // A daemon that was started anew counts from nothing.
        let ms = listing.up_ms.saturating_sub(*at);
        let mut now = HashMap::new();
        let mut rates = HashMap::new();
        for info in &listing.containers {
            now.insert(info.id.clone(), info.attempts);
            if let Some(before) = before.get(&info.id).filter(|_| ms > 0) {
                let more = info.attempts.saturating_sub(*before);
                rates.insert(info.id.clone(), more as f64 * 1000.0 / ms as f64);
            }
        }
        // An answer right behind another would make rates of a few events.
        if ms >= 500 || listing.up_ms < *at || before.is_empty() {
            self.before = (now, listing.up_ms);
            self.rates = rates;
        }
        self.listing = listing;
        self.order();
    }

    /// The daemon told of one container.
    pub(super) fn show(&mut self, mut listing: TopListing, caps: Option<CapsInfo>) {
        self.error = None;
        let Page::Detail(detail) = &mut self.page else { return };
        let info = listing.containers.pop().filter(|info| info.id == detail.id);
        detail.gone = info.is_none();
        detail.info = info.or(detail.info.take());
        detail.caps = caps.or(detail.caps.take());
        // What stands above the container.
        let containers = std::mem::take(&mut self.listing.containers);
        self.listing = TopListing { containers, omitted: self.listing.omitted, ..listing };
    }

    /// The daemon did not answer.
    pub(super) fn fail(&mut self, error: String) {
        self.error = Some(error);
    }

    /// What to ask next.
    pub(super) fn question(&self) -> Question {
        match &self.page {
            Page::List => Question::All,
            Page::Detail(detail) => Question::One(detail.id.clone()),
        }
    }

    /// Attempts of a container in a second, if two answers told.
    pub(super) fn rate(&self, id: &str) -> Option<f64> {
        self.rates.get(id).copied()
    }

    fn order(&mut self) {
        let rates = &self.rates;
        let rate = |info: &TopInfo| rates.get(&info.id).map_or(0, |rate| (rate * 1000.0) as u64);
        let by: &dyn Fn(&TopInfo) -> u64 = match self.sort {
            SortKey::Attempts => &|info| info.attempts,
            SortKey::Rate => &rate,
            SortKey::Refused => &|info| info.refused,
            SortKey::Lost => &|info| info.lost,
            SortKey::Alerts => &|info| info.alerts,
            SortKey::Name => &|_| 0,
        };
        self.listing.containers.sort_by(|a, b| {
            let key = |info: &TopInfo| Reverse(by(info));
            let name = |info: &TopInfo| info.name.clone().unwrap_or_else(|| "\u{10ffff}".to_owned());
            key(a).cmp(&key(b)).then_with(|| name(a).cmp(&name(b))).then_with(|| a.id.cmp(&b.id))
        });
    }

    /// The number of the chosen container.
    pub(super) fn chosen(&self) -> usize {
        let chosen = self.chosen.as_deref();
        let at = self.listing.containers.iter().position(|info| chosen == Some(info.id.as_str()));
        at.unwrap_or(0)
    }

    fn choose(&mut self, number: usize) {
        let last = self.listing.containers.len().saturating_sub(1);
        self.chosen = self.listing.containers.get(number.min(last)).map(|info| info.id.clone());
    }

    /// Obeys a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        if key.kind == KeyEventKind::Release {
            return Step::Stay;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Step::Quit,
            KeyCode::Char('q') => return Step::Quit,
            // Any key leaves the help.
            _ if self.help => {
                self.help = false;
                return Step::Stay;
            }
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => {
                self.help = true;
                return Step::Stay;
            }
            _ => {}
        }
        match &mut self.page {
            Page::List => self.key_in_list(key.code),
            Page::Detail(detail) => {
                let scrolled = &mut detail.scrolled;
                let page = u16::try_from(self.page_rows).unwrap_or(u16::MAX);
                match key.code {
                    KeyCode::Up | KeyCode::Char('k') => *scrolled = scrolled.saturating_sub(1),
                    KeyCode::Down | KeyCode::Char('j') => *scrolled = scrolled.saturating_add(1),
                    KeyCode::PageUp => *scrolled = scrolled.saturating_sub(page),
                    KeyCode::PageDown => *scrolled = scrolled.saturating_add(page),
                    KeyCode::Home => *scrolled = 0,
                    KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => {
                        self.page = Page::List;
                        return Step::Ask;
                    }
                    _ => {}
                }
                Step::Stay
            }
        }
    }

    fn key_in_list(&mut self, code: KeyCode) -> Step {
        let (at, page) = (self.chosen(), self.page_rows.max(1));
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.choose(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(at + 1),
            KeyCode::PageUp => self.choose(at.saturating_sub(page)),
            KeyCode::PageDown => self.choose(at + page),
            KeyCode::Home => self.choose(0),
            KeyCode::End => self.choose(usize::MAX),
            KeyCode::Enter | KeyCode::Right => {
                let Some(info) = self.listing.containers.get(at) else { return Step::Stay };
                let detail = Detail { id: info.id.clone(), info: Some(info.clone()), ..Detail::default() };
                self.chosen = Some(info.id.clone());
                self.page = Page::Detail(Box::new(detail));
                return Step::Ask;
            }
            KeyCode::Char(letter) => {
                self.sort = match letter {
                    'a' => SortKey::Attempts,
                    's' => SortKey::Rate,
                    'r' => SortKey::Refused,
                    'l' => SortKey::Lost,
                    'f' => SortKey::Alerts,
                    'n' => SortKey::Name,
                    _ => return Step::Stay,
                };
                self.order();
            }
            _ => {}
        }
        Step::Stay
    }
}
