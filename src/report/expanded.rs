//! Writes the rows of a table one below the other if they do not fit the terminal, like `\x auto` of `psql`.
//!
//! A row that is wrapped over ten lines cannot be read, and an id that is wrapped cannot be copied. Pure over Write; uses nothing of
//! the crate. Its text is already safe.

use std::io;

use unicode_width::UnicodeWidthStr;

/// Columns up to this width are never wrapped.
const NARROW: usize = 16;
/// The least width of a column with prose or names.
const PROSE: usize = 20;
/// The lengths of the ids of rows and of runs.
const IDS: [usize; 2] = [36, 25];

/// The width of a column, from its title and cells.
#[derive(Debug, Default)]
pub struct ColumnWidth {
    whole: usize,
    words: usize,
}

impl ColumnWidth {
    /// The width of a column without cells.
    pub fn of_title(title: &str) -> Self {
        let mut width = Self::default();
        width.add(title);
        width
    }

    /// Adds a cell.
    pub fn add(&mut self, cell: &str) {
        self.whole = self.whole.max(cell.width());
        for word in cell.split(' ') {
            let width = word.width();
            self.words = self.words.max(if holds_id(word) { width } else { width.min(PROSE) });
        }
    }

    /// The width in which no cell is wrapped.
    pub fn whole(&self) -> usize {
        self.whole
    }

    /// The least width that wraps no id and no short text.
    pub fn least(&self) -> usize {
        if self.whole <= NARROW { self.whole } else { self.words }
    }
}

/// Whether the word is an id, perhaps with a comma or a bracket around it.
fn holds_id(word: &str) -> bool {
    let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    IDS.contains(&core.len()) && core.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '-' | 'T' | 'Z'))
}

/// The style of a cell from its title and text.
pub type CellStyle<'a> = &'a dyn Fn(&str, &str) -> Option<anstyle::Style>;

/// How records are laid out.
pub struct Layout<'a> {
    /// The width of the terminal in columns.
    pub width: usize,
    /// How cells are coloured, if colours are allowed.
    pub style: Option<CellStyle<'a>>,
}

/// Writes the records, of which there are so many. An empty cell has no line.
pub fn write(
    out: &mut dyn io::Write,
    titles: &[&str],
    number: usize,
    rows: impl Iterator<Item = io::Result<Vec<String>>>,
    layout: &Layout<'_>,
) -> io::Result<()> {
    let Layout { width, style } = *layout;
    let margin = titles.iter().map(|title| title.width()).max().unwrap_or(0);
    let room = width.saturating_sub(margin + 3).max(PROSE);
    let bold = if style.is_some() { anstyle::Style::new().bold() } else { anstyle::Style::new() };
    for (place, row) in rows.enumerate() {
        let row = row?;
        let head = format!("-[ {} of {number} ]", place + 1);
        let dashes = "-".repeat(width.saturating_sub(head.width()).min(72));
        writeln!(out, "{bold}{head}{dashes}{bold:#}")?;
        for (title, cell) in titles.iter().zip(&row) {
            for (line, text) in wrapped(cell, room).iter().enumerate() {
                let shown = if line == 0 { *title } else { "" };
                let gap = " ".repeat(margin.saturating_sub(shown.width()));
                let style = style.and_then(|style| style(title, cell)).unwrap_or_default();
                writeln!(out, "{bold}{shown}{bold:#}{gap} | {style}{text}{style:#}")?;
            }
        }
    }
    Ok(())
}

/// The text in lines of at most `room` columns, wrapped between words, or inside a word that is longer than a line.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !line.is_empty() && line.width() + 1 + word.width() > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            if line.width() + c.encode_utf8(&mut [0; 4]).width() > room {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID_A: &str = "3f6c1b52-9e07-4d8a-b1c4-85d2f7e06a93";

    #[test]
    fn ids_and_short_columns_are_not_broken() {
        let least = |cells: &[&str]| {
            let mut width = ColumnWidth::default();
            cells.iter().for_each(|cell| width.add(cell));
            width.least()
        };
        assert_eq!(least(&["ID", ID_A]), 36);
        assert_eq!(least(&["Proposed", &format!("volume {ID_A}: status a -> b")]), 37);
        assert_eq!(least(&["Run", "20261122T195941Z-26dacd5d"]), 25);
        assert_eq!(least(&["Age", "3 h 39 min"]), 10);
        assert_eq!(least(&["Name", "nightly of the year", "=HYPERLINK(\"http://203.0.113.9/?\"&A1)"]), 20);
        assert_eq!(least(&["Reason", ""]), 6);
    }

    #[test]
    fn records_wrap_between_words_and_leave_out_empty_cells() {
        let rows = vec![
            vec![ID_A.to_owned(), "stuck".to_owned(), format!("volume {ID_A} does not exist any more"), String::new()],
            vec!["b2".to_owned(), "recent".to_owned(), "x".repeat(60), "说".repeat(30)],
        ];
        let mut out = Vec::new();
        write(&mut out, &["ID", "Verdict", "Evidence", "Note"], 2, rows.into_iter().map(Ok), &Layout { width: 60, style: None }).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        -[ 1 of 2 ]-------------------------------------------------
        ID       | 3f6c1b52-9e07-4d8a-b1c4-85d2f7e06a93
        Verdict  | stuck
        Evidence | volume 3f6c1b52-9e07-4d8a-b1c4-85d2f7e06a93 does
                 | not exist any more
        -[ 2 of 2 ]-------------------------------------------------
        ID       | b2
        Verdict  | recent
        Evidence | xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
                 | xxxxxxxxxxx
        Note     | 说说说说说说说说说说说说说说说说说说说说说说说说
                 | 说说说说说说
        ");
    }

    #[test]
    fn colours_only_when_asked_for() {
        let paint = |title: &str, _: &str| (title == "Verdict").then(|| anstyle::AnsiColor::Red.on_default());
        let rows = vec![vec!["stuck".to_owned()]];
        let written = |style| {
            let mut out = Vec::new();
            write(&mut out, &["Verdict"], 1, rows.iter().cloned().map(Ok), &Layout { width: 40, style }).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(!written(None).contains('\u{1b}'));
        assert!(written(Some(&paint)).contains("\u{1b}[31mstuck"), "{:?}", written(Some(&paint)));
    }
}
