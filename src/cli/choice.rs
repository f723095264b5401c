//! The choice of units at a terminal: what the screen shows, and what each key does.
//!
//! Pure: `prompt` reads the keys, draws the lines, and reads the unit of [`Choice::current`] from the plan. A unit takes about 100 bytes.

use std::collections::{BTreeMap, BTreeSet};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::ui::broken;
use super::view;
use crate::domain::FindingKind;
use crate::domain::text::count;
use crate::plan::Unit;
use crate::report::safe::terminal;

/// Lines above the list, and below it: a rule, what changes, and the keys.
const HEAD: usize = 3;
const FOOT: usize = 1 + CHANGES + KEYS.len();
const CHANGES: usize = 3;
const KEYS: [&str; 2] = [
    "Type to filter.  Space: choose  Ctrl-A: all shown  Right/Left: open, close group",
    "Tab: details  Enter: continue  Esc: clear the filter, or stop",
];
/// The smallest screen that is drawn to.
const SMALLEST: (usize, usize) = (40, HEAD + FOOT + 3);

/// Units that look alike: of the same host, kind, status and verdict, with the same kind of changes.
#[derive(Debug)]
struct Group {
    title: String,
    is_open: bool,
    items: Vec<Item>,
}

#[derive(Debug)]
struct Item {
    /// Its place in the plan.
    place: usize,
    /// Its number in the plan.
    number: usize,
    /// Id and name.
    text: String,
    is_chosen: bool,
    passes: bool,
}

/// A line of the list: a group, or one of its units.
type Line = (usize, Option<usize>);

/// What a key leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Stay,
    Continue,
    Stop,
}

/// A line of the screen; the one under the cursor stands out.
#[derive(Debug, PartialEq, Eq)]
pub struct Drawn {
    pub text: String,
    pub is_current: bool,
}

#[derive(Debug)]
pub struct Choice {
    heading: String,
    groups: Vec<Group>,
    filter: String,
    lines: Vec<Line>,
    /// Places in `lines`.
    cursor: usize,
    top: usize,
    /// How many lines the list had when it was drawn last.
    page: usize,
    /// The first line of the details that is shown; `None` while the list is shown.
    details: Option<usize>,
    /// An answer to the last key.
    message: Option<&'static str>,
}

impl Choice {
    /// The units of a plan in its order. `location` is hostile text.
    ///
    /// # Errors
    /// Those of reading a unit.
    pub fn new<E>(location: &str, units: impl Iterator<Item = Result<Unit, E>>, are_chosen: bool) -> Result<Self, E> {
        let mut groups: BTreeMap<(FindingKind, String), Vec<Item>> = BTreeMap::new();
        for (place, unit) in units.enumerate() {
            let unit = unit?;
            let text = terminal(&format!("{} {}", unit.id, unit.name.as_deref().unwrap_or_default())).trim_end().to_owned();
            let item = Item { place, number: unit.number, text, is_chosen: are_chosen, passes: true };
            groups.entry((unit.kind, title(&unit))).or_default().push(item);
        }
        let groups: Vec<Group> = groups.into_iter().map(|((_, title), items)| Group { title, is_open: false, items }).collect();
        let heading = terminal(&format!("Choose what to change in {location}"));
        let (filter, lines) = (String::new(), Vec::new());
        let mut choice = Self { heading, groups, filter, lines, cursor: 0, top: 0, page: 1, details: None, message: None };
        choice.list();
        Ok(choice)
    }

    /// Opens all groups if a screen of this height shows all units.
    pub fn open_if_it_fits(&mut self, height: usize) {
        let all = self.groups.iter().map(|group| 1 + group.items.len()).sum::<usize>();
        if all + HEAD + FOOT <= height {
            self.groups.iter_mut().for_each(|group| group.is_open = true);
            self.list();
        }
    }

    /// The numbers of the chosen units.
    pub fn chosen(&self) -> BTreeSet<usize> {
        self.items().filter(|item| item.is_chosen).map(|item| item.number).collect()
    }

    /// The place in the plan of the unit under the cursor; of a group, its first one.
    pub fn current(&self) -> Option<usize> {
        let (group, item) = *self.lines.get(self.cursor)?;
        let items = &self.groups.get(group)?.items;
        item.map_or_else(|| items.iter().find(|item| item.passes), |item| items.get(item)).map(|item| item.place)
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.groups.iter().flat_map(|group| &group.items)
    }

    /// Makes the list again. The cursor stays where it is, as far as there are lines.
    fn list(&mut self) {
        self.lines.clear();
        for (number, group) in self.groups.iter().enumerate() {
            let passing = || group.items.iter().enumerate().filter(|(_, item)| item.passes);
            if passing().next().is_none() {
                continue;
            }
            self.lines.push((number, None));
            if group.is_open || !self.filter.is_empty() {
                self.lines.extend(passing().map(|(item, _)| (number, Some(item))));
            }
        }
        self.cursor = self.cursor.min(self.lines.len().saturating_sub(1));
    }

    fn filter(&mut self) {
        let wanted = self.filter.to_lowercase();
        for group in &mut self.groups {
            let all = group.title.to_lowercase().contains(&wanted);
            group.items.iter_mut().for_each(|item| item.passes = all || item.text.to_lowercase().contains(&wanted));
        }
        (self.cursor, self.top) = (0, 0);
        self.list();
    }

    /// Does what a key is for.
    pub fn press(&mut self, key: KeyEvent) -> Step {
        self.message = None;
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if let Some(first) = self.details {
            match key.code {
                KeyCode::Up => self.details = Some(first.saturating_sub(1)),
                KeyCode::Down => self.details = Some(first + 1),
                KeyCode::PageUp => self.details = Some(first.saturating_sub(self.page)),
                KeyCode::PageDown => self.details = Some(first + self.page),
                KeyCode::Tab | KeyCode::Esc | KeyCode::Left | KeyCode::Enter => self.details = None,
                _ => {}
            }
            return Step::Stay;
        }
        let last = self.lines.len().saturating_sub(1);
        match key.code {
            KeyCode::Up => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Down => self.cursor = (self.cursor + 1).min(last),
            KeyCode::PageUp => self.cursor = self.cursor.saturating_sub(self.page),
            KeyCode::PageDown => self.cursor = (self.cursor + self.page).min(last),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = last,
            KeyCode::Right => self.open(true),
            KeyCode::Left => self.open(false),
            KeyCode::Tab if self.current().is_some() => self.details = Some(0),
            KeyCode::Char('a') if is_control => self.toggle(None),
            KeyCode::Char('u') if is_control => {
                self.filter.clear();
                self.filter();
            }
            KeyCode::Char(' ') => {
                if let Some(line) = self.lines.get(self.cursor) {
                    self.toggle(Some(*line));
                }
            }
            KeyCode::Backspace => {
                self.filter.pop();
                self.filter();
            }
            // Where a slash begins a search, one is pressed out of habit.
            KeyCode::Char('/') if self.filter.is_empty() => {}
            KeyCode::Char(c) if !is_control => {
                self.filter.push(c);
                self.filter();
            }
            KeyCode::Esc if self.filter.is_empty() => return Step::Stop,
            KeyCode::Esc => {
                self.filter.clear();
                self.filter();
            }
            KeyCode::Enter if self.items().any(|item| item.is_chosen) => return Step::Continue,
            KeyCode::Enter => self.message = Some("Nothing is chosen yet: Space chooses a line, Esc stops."),
            _ => {}
        }
        Step::Stay
    }

    /// Opens or closes the group under the cursor, or that of the unit under it.
    fn open(&mut self, is_open: bool) {
        let Some((number, _)) = self.lines.get(self.cursor).copied() else { return };
        let Some(group) = self.groups.get_mut(number) else { return };
        group.is_open = is_open;
        if !is_open {
            self.cursor = self.lines.iter().position(|line| *line == (number, None)).unwrap_or(0);
        }
        self.list();
    }

    /// Chooses the units of a line, or all that the filter lets through; if all of them are chosen, none.
    fn toggle(&mut self, line: Option<Line>) {
        let meant = |group: usize, place: usize, item: &Item| {
            item.passes && line.is_none_or(|(of, only)| of == group && only.is_none_or(|only| only == place))
        };
        let mut meant: Vec<&mut Item> = (self.groups.iter_mut().enumerate())
            .flat_map(|(number, group)| group.items.iter_mut().enumerate().map(move |(place, item)| (number, place, item)))
            .filter_map(|(number, place, item)| meant(number, place, item).then_some(item))
            .collect();
        let all = meant.iter().all(|item| item.is_chosen);
        meant.iter_mut().for_each(|item| item.is_chosen = !all);
    }

    /// The screen. `unit` is the unit of [`Self::current`].
    pub fn draw(&mut self, columns: usize, rows: usize, unit: Option<&Unit>) -> Vec<Drawn> {
        let (columns, rows) = (columns.max(SMALLEST.0), rows.max(SMALLEST.1));
        self.page = rows - HEAD - FOOT;
        let plain = |text: String| Drawn { text, is_current: false };
        let (chosen, passing, all) = self.items().fold((0, 0, 0), |(chosen, passing, all), item| {
            (chosen + usize::from(item.is_chosen), passing + usize::from(item.passes), all + 1)
        });
        let mut screen = vec![
            plain(ends(&self.heading, &format!("{chosen} of {} chosen", count(all, "unit")), columns)),
            plain(ends(&format!("Filter: {}_", self.filter), &format!("{passing} shown"), columns)),
            plain(self.message.unwrap_or_default().to_owned()),
        ];
        if let (Some(first), Some(unit)) = (self.details, unit) {
            let text: Vec<String> = details(unit).iter().flat_map(|line| wrapped(line, columns)).collect();
            let first = first.min(text.len().saturating_sub(rows - HEAD - 2));
            self.details = Some(first);
            screen.extend(text.into_iter().skip(first).take(rows - HEAD - 2).map(plain));
            screen.resize_with(rows - 1, || plain(String::new()));
            screen.push(plain("Up, Down: scroll  Tab: back to the list".to_owned()));
            return screen;
        }
        self.top = self.top.min(self.cursor).max((self.cursor + 1).saturating_sub(self.page));
        let lines = self.lines.iter().enumerate().skip(self.top).take(self.page);
        screen.extend(lines.map(|(place, line)| {
            let is_current = place == self.cursor;
            Drawn { text: self.line(*line, is_current, columns), is_current }
        }));
        screen.resize_with(HEAD + self.page, || plain(String::new()));
        screen.push(plain("-".repeat(columns)));
        let group = self.lines.get(self.cursor).filter(|(_, item)| item.is_none()).and_then(|(group, _)| self.groups.get(*group));
        let about = match (group, unit) {
            (Some(group), _) => wrapped(&group.title, columns),
            (None, Some(unit)) => view::rows(unit).iter().flat_map(|row| wrapped(row, columns)).collect(),
            (None, None) => vec!["Nothing passes the filter.".to_owned()],
        };
        let is_cut = about.len() > CHANGES;
        screen.extend(about.into_iter().take(if is_cut { CHANGES - 1 } else { CHANGES }).map(plain));
        if is_cut {
            screen.push(plain("... Tab shows all.".to_owned()));
        }
        screen.resize_with(rows - KEYS.len(), || plain(String::new()));
        screen.extend(KEYS.map(|line| plain(cut(line, columns))));
        screen
    }

    fn line(&self, (number, item): Line, is_current: bool, columns: usize) -> String {
        let marker = if is_current { '>' } else { ' ' };
        let Some(group) = self.groups.get(number) else { return String::new() };
        if let Some(item) = item.and_then(|item| group.items.get(item)) {
            return cut(&format!("{marker}     [{}] {}", if item.is_chosen { 'x' } else { ' ' }, item.text), columns);
        }
        let passing = || group.items.iter().filter(|item| item.passes);
        let (chosen, all) = (passing().filter(|item| item.is_chosen).count(), passing().count());
        let mark = match chosen {
            0 => ' ',
            some if some == all => 'x',
            _ => '-',
        };
        ends(&format!("{marker} [{mark}] {}", group.title), &format!("{chosen} of {all}"), columns)
    }
}

/// What the units of a group have in common; of a hostile host or status, what is safe to show.
pub fn title(unit: &Unit) -> String {
    let host = match (&unit.host, unit.kind) {
        (Some(host), _) => format!("{host}: "),
        (None, FindingKind::Backup | FindingKind::Host) => "no host: ".to_owned(),
        (None, _) => String::new(),
    };
    let kind = if unit.kind == FindingKind::Host { "hosts of backup".to_owned() } else { unit.kind.to_string() };
    let has_status = unit.changes.iter().any(|change| change.column == "status" && change.id == unit.id);
    let status = unit.status.as_deref().filter(|_| !has_status).map(|status| format!(" in {status}")).unwrap_or_default();
    terminal(&format!("{host}{} {kind}s{status}, {}", unit.verdict, view::kinds_of_changes(&unit.changes)))
}

/// All that is known of a unit.
fn details(unit: &Unit) -> Vec<String> {
    let mut lines = vec![unit.title(), String::new()];
    let status = unit.status.as_deref().unwrap_or("NULL");
    match unit.kind {
        FindingKind::Project => {}
        _ => lines.push(format!("{} on {}, {}", status, unit.host.as_deref().unwrap_or("no host"), unit.verdict)),
    }
    let mut part = |heading: &str, texts: Vec<String>| {
        if !texts.is_empty() {
            lines.extend([String::new(), heading.to_owned()]);
            lines.extend(texts.into_iter().map(|text| format!("  {text}")));
        }
    };
    part("Evidence", unit.evidence.iter().map(|evidence| evidence.text.clone()).collect());
    part("Changes", view::rows(unit));
    part("Once the API is back", unit.follow_up.clone());
    lines.iter().map(|line| terminal(line)).collect()
}

fn wrapped(text: &str, columns: usize) -> Vec<String> {
    broken(text, columns).lines().map(|line| cut(line, columns)).collect()
}

/// Two texts at the ends of a line; the first one gives way.
fn ends(first: &str, last: &str, columns: usize) -> String {
    let room = columns.saturating_sub(last.width() + 1);
    let first = cut(first, room);
    let gap = " ".repeat(columns.saturating_sub(first.width() + last.width()));
    format!("{first}{gap}{last}")
}

/// A text cut to a width: a line that wraps would be drawn over others.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut used = 1;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= columns
    };
    format!("{}…", text.chars().take_while(fits).collect::<String>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::domain::{Change, Evidence, EvidenceCode, Table, Value, Verdict};

    fn unit(number: usize, host: &str, name: &str) -> Unit {
        let change = |table, id: &str, column: &str, from: &str, to: &str| Change {
            table,
            id: id.to_owned(),
            column: column.to_owned(),
            from: Value::from(from),
            to: Value::from(to),
        };
        let id = format!("{number:08}-0000-4000-8000-000000000000");
        let changes = vec![
            change(Table::Backups, &id, "status", "creating", "error"),
            change(Table::Backups, &id, "fail_reason", "", "because"),
            change(Table::Volumes, "v1", "status", "backing-up", "available"),
        ];
        Unit {
            number,
            kind: FindingKind::Backup,
            id,
            name: Some(name.to_owned()),
            status: Some("creating".to_owned()),
            host: Some(host.to_owned()),
            counter: false,
            verdict: Verdict::Stuck,
            evidence: Vec::<Evidence>::new(),
            before: Vec::new(),
            changes,
            follow_up: Vec::new(),
        }
    }

    fn choice(units: &[Unit]) -> Choice {
        Choice::new("sqlite:////c.db", units.iter().cloned().map(Ok::<_, Infallible>), false).unwrap()
    }

    fn press(choice: &mut Choice, keys: &[KeyCode]) -> Step {
        keys.iter().fold(Step::Stay, |_, key| choice.press(KeyEvent::new(*key, KeyModifiers::NONE)))
    }

    fn typed(choice: &mut Choice, text: &str) {
        text.chars().for_each(|c| assert_eq!(press(choice, &[KeyCode::Char(c)]), Step::Stay));
    }

    fn screen(choice: &mut Choice, units: &[Unit], columns: usize) -> String {
        let unit = choice.current().map(|place| units[place].clone());
        let lines = choice.draw(columns, 24, unit.as_ref());
        assert_eq!(lines.len(), 24);
        assert!(lines.iter().all(|line| line.text.width() <= columns), "{lines:#?}");
        assert!(lines.iter().filter(|line| line.is_current).count() <= 1);
        lines.iter().map(|line| format!("{}\n", line.text.trim_end())).collect()
    }

    #[test]
    fn the_screen_of_80_columns_shows_the_whole_change_of_a_line() {
        let units = [unit(1, "ctl1", "nightly"), unit(2, "ctl1", "weekly"), unit(3, "ctl2", "nightly 3")];
        let mut choice = choice(&units);
        choice.open_if_it_fits(24);
        press(&mut choice, &[KeyCode::Down, KeyCode::Char(' ')]);
        insta::assert_snapshot!(screen(&mut choice, &units, 80), @r"
        Choose what to change in sqlite:////c.db                     1 of 3 units chosen
        Filter: _                                                                3 shown

          [-] ctl1: stuck backups, creating -> error, volume backing-up -> avail… 1 of 2
        >     [x] 00000001-0000-4000-8000-000000000000 nightly
              [ ] 00000002-0000-4000-8000-000000000000 weekly
          [ ] ctl2: stuck backups, creating -> error, volume backing-up -> avail… 0 of 1
              [ ] 00000003-0000-4000-8000-000000000000 nightly 3










        --------------------------------------------------------------------------------
        backups 00000001-0000-4000-8000-000000000000: status creating -> error,
          fail_reason  -> because
        volumes v1: status backing-up -> available
        Type to filter.  Space: choose  Ctrl-A: all shown  Right/Left: open, close group
        Tab: details  Enter: continue  Esc: clear the filter, or stop
        ");
        assert_eq!(choice.chosen(), [1].into());
    }

    #[test]
    fn a_filter_narrows_what_space_and_ctrl_a_choose_and_never_what_is_chosen() {
        let units: Vec<Unit> = (1..=300).map(|number| unit(number, ["ctl1", "ctl2"][number % 2], &format!("name {number}"))).collect();
        let mut choice = choice(&units);
        choice.open_if_it_fits(24);
        assert_eq!(choice.lines.len(), 2, "many units are closed groups");
        assert_eq!(press(&mut choice, &[KeyCode::Enter]), Step::Stay, "nothing is chosen at first");
        assert!(screen(&mut choice, &units, 80).contains("Nothing is chosen yet"));
        typed(&mut choice, "/NAME");
        assert_eq!(choice.lines.len(), 302);
        press(&mut choice, &[KeyCode::Backspace; 5]);
        typed(&mut choice, "0000030");
        assert!(screen(&mut choice, &units, 80).contains("2 shown"), "{}", screen(&mut choice, &units, 80));
        choice.press(KeyEvent::new(KeyCode::Char('a'), KeyModifiers::CONTROL));
        assert_eq!(choice.chosen(), [30, 300].into());
        assert_eq!(press(&mut choice, &[KeyCode::Esc]), Step::Stay, "clears the filter");
        assert_eq!(choice.chosen(), [30, 300].into());
        // The group of both is partly chosen: all of it, and then none.
        assert!(screen(&mut choice, &units, 80).contains("> [-] ctl1: stuck backups"));
        press(&mut choice, &[KeyCode::Char(' ')]);
        assert_eq!(choice.chosen(), (1..=150).map(|half| half * 2).collect());
        press(&mut choice, &[KeyCode::Char(' ')]);
        assert!(choice.chosen().is_empty());
        typed(&mut choice, "nothing has this");
        assert!(choice.current().is_none() && screen(&mut choice, &units, 80).contains("Nothing passes the filter."));
        assert_eq!(press(&mut choice, &[KeyCode::Tab, KeyCode::Down, KeyCode::Enter, KeyCode::Esc, KeyCode::Esc]), Step::Stop);
    }

    #[test]
    fn the_cursor_stays_on_the_screen_and_groups_open_and_close() {
        let units: Vec<Unit> = (1..=100).map(|number| unit(number, "ctl1", "n")).collect();
        let mut choice = choice(&units);
        press(&mut choice, &[KeyCode::Right, KeyCode::End]);
        assert!(screen(&mut choice, &units, 80).contains(">     [ ] 00000100-"));
        press(&mut choice, &[KeyCode::PageUp, KeyCode::PageUp, KeyCode::Up]);
        assert!(screen(&mut choice, &units, 80).contains("\n>     [ ] "));
        press(&mut choice, &[KeyCode::Left]);
        assert_eq!((choice.lines.len(), choice.cursor), (1, 0));
        press(&mut choice, &[KeyCode::Home, KeyCode::PageDown, KeyCode::Right, KeyCode::Down, KeyCode::Char(' '), KeyCode::Enter]);
        assert_eq!(choice.chosen(), [1].into());
    }

    #[test]
    fn details_scroll_and_hostile_text_stays_text() {
        let mut units = [unit(1, "ctl1", "evil\u{1b}[2J\u{202e}"), unit(2, "c\ntl", "")];
        units[0].evidence = (0..40).map(|n| Evidence::new(EvidenceCode::ServiceDown, format!("reason {n}"))).collect();
        let mut choice = choice(&units);
        press(&mut choice, &[KeyCode::End, KeyCode::Tab]);
        let first = screen(&mut choice, &units, 60);
        assert!(first.contains("Evidence") && !first.contains("Changes"), "{first}");
        press(&mut choice, &[KeyCode::PageDown; 9]);
        let last = screen(&mut choice, &units, 60);
        assert!(last.contains("volumes v1: status backing-up -> available"), "{last}");
        press(&mut choice, &[KeyCode::Up]);
        assert_ne!(screen(&mut choice, &units, 60), last, "a key after the end scrolls at once");
        press(&mut choice, &[KeyCode::Esc, KeyCode::Right]);
        let list = screen(&mut choice, &units, 60);
        for text in [first, last, list] {
            assert!(text.chars().all(|c| c == '\n' || !crate::domain::text::is_hostile(c)), "{text:?}");
        }
    }
}
