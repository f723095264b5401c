//! A result as a table, JSON, YAML, CSV or plain values, with the options of the OpenStack clients for columns and sorting.
//!
//! The formats follow cliff, the library of those clients, so that scripts for them can read this program's output: borders, `None` for
//! NULL, quotes in CSV around everything but numbers, NULL last when sorting. If the terminal is too narrow for a table, the rows
//! are written one below the other ([`expanded`]). Rows are in a [`Spool`], because a result may have a million. May use `report::expanded`,
//! `json`, `safe` and `yaml`, and `spool` only.

use std::borrow::Borrow;
use std::io;

use anstyle::AnsiColor;
use clap::{Args, ValueEnum};
use comfy_table::{Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::expanded::ColumnWidth;
use super::{expanded, json, safe, yaml};
use crate::domain::text::meant;
use crate::spool::Spool;

/// The borders of the OpenStack clients' tables, in comfy-table's order of components.
const BORDERS: &str = "||--+-++|    ++++++";

/// The longest cell of a table, in characters. The time to lay out a table grows with the square of a cell's length, and the layout
/// fails beyond 65,535 columns. The other formats have the whole text.
const LONGEST_CELL: usize = 1_000;

/// The number of rows of a table that are laid out at the same time.
const PORTION: usize = 1_000;

/// A cell of a [`Grid`]. Cells are sorted in the order of the variants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// A number, aligned to the right and sorted by value.
    Integer(i64),
    /// Text from the database. It is escaped when it is written.
    Text(String),
    /// NULL.
    Null,
}

impl Cell {
    /// The text that the OpenStack clients show: NULL is `None`.
    fn shown(&self) -> String {
        match self {
            Self::Null => "None".to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Text(text) => safe::terminal(text),
        }
    }

    /// The text in a table: cut after [`LONGEST_CELL`] characters, with `…` at the end.
    fn in_table(&self) -> String {
        let Self::Text(text) = self else { return self.shown() };
        let cut = |text: &str| text.char_indices().nth(LONGEST_CELL).map(|(end, _)| text.get(..end).unwrap_or_default().to_owned());
        let beginning = cut(text);
        let safe = safe::terminal(beginning.as_deref().unwrap_or(text));
        let shorter = cut(&safe);
        if beginning.is_some() || shorter.is_some() { format!("{}…", shorter.unwrap_or(safe)) } else { safe }
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(cell: Option<T>) -> Self {
        cell.map_or(Self::Null, Into::into)
    }
}

/// A column of a result: its title, for example `Project ID`, and its cell for an item.
pub type Column<T> = (&'static str, fn(&T) -> Cell);

/// The rows of a result as a table.
#[derive(Debug, Default)]
pub struct Grid {
    columns: Vec<&'static str>,
    rows: Spool<Vec<Cell>>,
}

impl Grid {
    /// Keeps rows with these titles. A missing cell is NULL.
    pub fn new(columns: &[&'static str], rows: impl IntoIterator<Item = io::Result<Vec<Cell>>>) -> io::Result<Self> {
        let mut kept = Spool::default();
        rows.into_iter().try_for_each(|row| kept.push(&row?))?;
        Ok(Self { columns: columns.to_vec(), rows: kept })
    }

    /// No rows.
    pub fn empty<T>(columns: &[Column<T>]) -> Self {
        Self { columns: columns.iter().map(|(title, _)| *title).collect(), rows: Spool::default() }
    }

    /// A row for each item.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub fn of<T>(items: impl IntoIterator<Item = impl Borrow<T>>, columns: &[Column<T>]) -> io::Result<Self> {
        Self::try_of(items.into_iter().map(Ok), columns)
    }

    /// The same for items that may be unreadable.
    ///
    /// # Errors
    /// Those of the items and of the temporary file.
    pub fn try_of<T>(items: impl IntoIterator<Item = io::Result<impl Borrow<T>>>, columns: &[Column<T>]) -> io::Result<Self> {
        let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
        let row = |item: &T| columns.iter().map(|(_, cell)| cell(item)).collect();
        Self::new(&titles, items.into_iter().map(|item| item.map(|item| row(item.borrow()))))
    }
}

/// Which CSV cells are quoted, as in Python's `csv`. The comments are the help of `--quote`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Quote {
    /// All of them.
    All,
    /// Those that need it.
    Minimal,
    /// None: special characters are escaped with a backslash.
    None,
    /// All except numbers.
    #[default]
    Nonnumeric,
}

/// The format of a result. The comments are the help of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// JSON, with a schema name and version.
    Json,
    /// JSON lines, written as the result is made, for results of any size.
    Jsonl,
    /// The same as YAML.
    Yaml,
    /// Comma-separated values.
    Csv,
    /// Values separated by spaces.
    Value,
}

/// How a result is written. The comments of the options are their help.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct OutputOptions {
    /// The output format
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub format: Format,
    // In this order; all columns if empty. Case is ignored, and `_` matches a space.
    /// Show this column; repeatable
    #[arg(short, long = "column", global = true, value_name = "COLUMN")]
    pub columns: Vec<String>,
    // Most significant first. Unknown columns are ignored, as in the OpenStack clients.
    /// Sort by this column; repeatable
    #[arg(long = "sort-column", global = true, value_name = "COLUMN")]
    pub sort_columns: Vec<String>,
    /// Sort in ascending order (the default)
    #[arg(long, global = true, conflicts_with = "sort_descending")]
    pub sort_ascending: bool,
    /// Sort in descending order
    #[arg(long, global = true)]
    pub sort_descending: bool,
    /// Write JSON on one line
    #[arg(long, global = true)]
    pub noindent: bool,
    /// Which CSV cells to quote
    #[arg(long, global = true, value_enum, default_value = "nonnumeric", value_name = "WHICH")]
    pub quote: Quote,
    /// Maximum width of tables; below 1, the width of the terminal
    #[arg(long, global = true, value_name = "COLUMNS")]
    pub max_width: Option<i64>,
    /// Limit tables to the width of the terminal (the default)
    #[arg(long, global = true)]
    pub fit_width: bool,
    /// Print the column titles of a table without rows
    #[arg(long, global = true)]
    pub print_empty: bool,
    /// The width of the terminal, to which a table is fitted; `None` for no limit.
    #[arg(skip)]
    pub width: Option<u16>,
    /// Whether a table may have colours.
    #[arg(skip)]
    pub color: bool,
}

/// Why a result could not be written.
#[derive(Debug, Error)]
pub enum ReportError {
    /// `--column` names an unknown column.
    #[error("unknown column {column:?} in --column; the columns are {known}{meant}")]
    UnknownColumn {
        /// The unknown column.
        column: String,
        /// The known columns, separated by commas.
        known: String,
        /// The one that may be meant, in words.
        meant: String,
    },
    /// The output cannot be written, for example because the pipe is closed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl OutputOptions {
    /// Whether a document is written as it is, without a look at its rows.
    pub fn shows_document(&self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl) && self.columns.is_empty() && self.sort_columns.is_empty()
    }
}

/// Writes a result: the document for JSON and YAML, the grid otherwise.
///
/// `rows_key` is the member of the document that holds the rows of the grid as objects, in the same order. Sorting also sorts these. If
/// columns are chosen, each object is reduced to these columns, named by [`key`].
pub fn write(
    out: &mut dyn io::Write,
    document: &impl Serialize,
    rows_key: &str,
    grid: impl FnOnce() -> io::Result<Grid>,
    options: &OutputOptions,
) -> Result<(), ReportError> {
    if options.shows_document() {
        return Ok(json::write(out, document, options.noindent || options.format == Format::Jsonl)?);
    }
    let view = View::new(grid()?, options)?;
    match options.format {
        Format::Table => write_table(out, &view, options)?,
        Format::Csv => write_csv(out, &view, options.quote)?,
        Format::Value => write_values(out, &view)?,
        Format::Json | Format::Jsonl => json::write(out, &view.reduced(document, rows_key)?, options.noindent)?,
        Format::Yaml => out.write_all(yaml::to_string(&view.reduced(document, rows_key)?).as_bytes())?,
    }
    Ok(())
}

/// The name of a column in JSON and for `--column`: lower case, `_` for a space.
pub fn key(column: &str) -> String {
    column.trim().to_lowercase().replace([' ', '-'], "_")
}

/// The rows with the chosen columns in the chosen order.
struct View {
    titles: Vec<&'static str>,
    /// The places of the chosen columns.
    places: Vec<usize>,
    rows: Spool<Vec<Cell>>,
    cut: bool,
    /// For each row its index before the rows were sorted, if they were.
    order: Option<Vec<usize>>,
}

impl View {
    fn new(grid: Grid, options: &OutputOptions) -> Result<Self, ReportError> {
        let Grid { columns, mut rows } = grid;
        let place = |wanted: &str| columns.iter().position(|column| key(column) == key(wanted));
        let mut places = Vec::new();
        for column in &options.columns {
            let Some(found) = place(column) else {
                let meant = meant(&column.replace('_', " "), columns.iter().copied());
                return Err(ReportError::UnknownColumn { column: column.clone(), known: columns.join(", "), meant });
            };
            if !places.contains(&found) {
                places.push(found);
            }
        }
        let cut = !places.is_empty();
        if !cut {
            places.extend(0..columns.len());
        }
        let sort: Vec<usize> = options.sort_columns.iter().filter_map(|column| place(column)).collect();
        let order = if sort.is_empty() { None } else { Some(sorted(&rows, &sort, options.sort_descending)?) };
        if let Some(order) = &order {
            rows.rearrange(order.iter().copied());
        }
        let titles = places.iter().filter_map(|&place| columns.get(place).copied()).collect();
        Ok(Self { titles, places, rows, cut, order })
    }

    /// The rows.
    fn rows(&self) -> impl Iterator<Item = io::Result<Vec<Cell>>> {
        self.rows.iter().map(|row| row.map(|row| chosen(row, &self.places)))
    }

    /// The document with its rows reduced and sorted like these.
    fn reduced(&self, document: &impl Serialize, rows_key: &str) -> io::Result<Value> {
        let mut document = serde_json::to_value(document)?;
        let Some(member) = document.get_mut(rows_key) else { return Ok(document) };
        if self.cut {
            let object = |row: io::Result<Vec<Cell>>| -> io::Result<Map<String, Value>> {
                self.titles.iter().zip(row?).map(|(title, cell)| Ok((key(title), serde_json::to_value(cell)?))).collect()
            };
            *member = self.rows().map(object).collect::<io::Result<Value>>()?;
        } else if let (Some(order), Value::Array(items)) = (&self.order, member)
            && items.len() == order.len()
        {
            *items = order.iter().filter_map(|&place| items.get_mut(place).map(Value::take)).collect();
        }
        Ok(document)
    }
}

/// The indexes of the rows, sorted by some of their cells. Equal rows keep their order, as in cliff.
fn sorted(rows: &Spool<Vec<Cell>>, by: &[usize], descending: bool) -> io::Result<Vec<usize>> {
    let keys = rows.iter().map(|row| row.map(|row| chosen(row, by))).collect::<io::Result<Vec<_>>>()?;
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|a, b| {
        let order = keys.get(*a).cmp(&keys.get(*b));
        if descending { order.reverse() } else { order }
    });
    Ok(order)
}

/// Some cells of a row, each of them once.
fn chosen(mut row: Vec<Cell>, places: &[usize]) -> Vec<Cell> {
    places.iter().map(|&place| row.get_mut(place).map_or(Cell::Null, |cell| std::mem::replace(cell, Cell::Null))).collect()
}

/// A column of a table as it is drawn.
#[derive(Default)]
struct Drawn {
    width: ColumnWidth,
    /// Whether it is aligned to the right: its first cell is a number, as in cliff.
    is_numeric: bool,
}

fn write_table(out: &mut dyn io::Write, view: &View, options: &OutputOptions) -> io::Result<()> {
    // cliff prints an empty line for a table without rows.
    if view.rows.is_empty() && !options.print_empty {
        return out.write_all(b"\n");
    }
    let mut columns: Vec<Drawn> = view.titles.iter().map(|_| Drawn::default()).collect();
    columns.iter_mut().zip(&view.titles).for_each(|(column, title)| column.width.add(title));
    for (number, row) in view.rows().enumerate() {
        for (column, cell) in columns.iter_mut().zip(row?) {
            column.width.add(&cell.in_table());
            column.is_numeric |= number == 0 && matches!(cell, Cell::Integer(_));
        }
    }
    // Each column has a border and two spaces.
    let total = |width: fn(&ColumnWidth) -> usize| columns.iter().map(|column| width(&column.width) + 3).sum::<usize>() + 1;
    if let Some(width) = options.width.map(usize::from).filter(|width| total(ColumnWidth::least) > *width && !view.rows.is_empty()) {
        let rows = view.rows().map(|row| row.map(|row| row.iter().map(Cell::in_table).collect()));
        let style = |title: &str, word: &str| tint(title, word).map(|(_, color)| color.on_default());
        let layout = expanded::Layout { width, style: if options.color { Some(&style) } else { None } };
        return expanded::write(out, &view.titles, (rows, view.rows.len()), &layout);
    }
    // comfy-table counts the two spaces of a column.
    let with_spaces = |width: usize| Width::Fixed(u16::try_from(width + 2).unwrap_or(u16::MAX));
    let fits = options.width.is_none_or(|width| total(|width| width.whole) <= usize::from(width)) && !view.rows.is_empty();
    let constraint = |Drawn { width, .. }: &Drawn| {
        if fits {
            ColumnConstraint::Absolute(with_spaces(width.whole))
        } else {
            ColumnConstraint::LowerBoundary(with_spaces(width.least()))
        }
    };
    let mut constraints: Vec<ColumnConstraint> = columns.iter().map(constraint).collect();
    // The layout of a row takes several KB of memory, so a long table is laid out in portions, all as wide as the first one.
    for begin in (0..view.rows.len().max(1)).step_by(PORTION) {
        let rows = view.rows.read(begin..begin + PORTION)?.into_iter().map(|row| chosen(row, &view.places));
        let table = layout(view, rows, options, &constraints, &columns).to_string();
        let lines: Vec<&str> = table.lines().collect();
        // The titles with the lines above and below them come first, and the bottom line comes last.
        let mut borders = lines.iter().enumerate().filter(|(_, line)| line.starts_with('+'));
        let (top, below_titles) = (borders.next(), borders.next());
        let first = below_titles.filter(|_| begin > 0).map_or(0, |(number, _)| number + 1);
        if let Some((_, top)) = top.filter(|_| begin == 0) {
            let width = |dashes: &str| ColumnConstraint::Absolute(Width::Fixed(u16::try_from(dashes.len()).unwrap_or(u16::MAX)));
            constraints = top.trim_matches('+').split('+').map(width).collect();
        }
        let end = lines.len() - usize::from(begin + PORTION < view.rows.len());
        for line in lines.get(first..end).unwrap_or_default() {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// A table of some rows, with the width of each column.
fn layout(
    view: &View,
    rows: impl Iterator<Item = Vec<Cell>>,
    options: &OutputOptions,
    widths: &[ColumnConstraint],
    columns: &[Drawn],
) -> Table {
    let mut table = Table::new();
    table.load_preset(BORDERS);
    match options.width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if options.color {
        table.enforce_styling()
    } else {
        table.force_no_tty()
    };
    table.set_header(view.titles.iter().map(|title| comfy_table::Cell::new(title).add_attribute(Attribute::Bold)));
    for row in rows {
        table.add_row(row.iter().zip(&view.titles).map(|(cell, title)| {
            let shown = cell.in_table();
            match tint(title, &shown) {
                Some((color, _)) => comfy_table::Cell::new(shown).fg(color),
                None => comfy_table::Cell::new(shown),
            }
        }));
    }
    for (place, (width, column)) in widths.iter().zip(columns).enumerate() {
        let Some(shown) = table.column_mut(place) else { continue };
        shown.set_constraint(*width);
        if column.is_numeric {
            shown.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The colour of a verdict or an outcome, for both kinds of tables. The word alone has the whole meaning.
fn tint(title: &str, word: &str) -> Option<(Color, AnsiColor)> {
    if !matches!(key(title).as_str(), "verdict" | "outcome" | "result" | "state") {
        return None;
    }
    match word {
        "applied" | "intact" | "ok" | "OK" | "kept" => Some((Color::Green, AnsiColor::Green)),
        "stuck" | "failed" | "failure" | "refused" | "unknown" | "corrupt" | "missing" | "lost" => Some((Color::Red, AnsiColor::Red)),
        "uncertain" | "inconsistent" | "changed" | "incomplete" | "unverifiable" | "warning" => Some((Color::Yellow, AnsiColor::Yellow)),
        "busy" | "recent" | "planned" => Some((Color::Cyan, AnsiColor::Cyan)),
        _ => None,
    }
}

/// CSV as Python's `csv` writes it for cliff: the escape character is the backslash, which is escaped too.
fn write_csv(out: &mut dyn io::Write, view: &View, quote: Quote) -> io::Result<()> {
    let text = |text: &str| {
        let inner = text.replace('\\', "\\\\");
        match quote {
            Quote::None => inner.replace(',', "\\,").replace('"', "\\\""),
            // A row of one empty cell would be an empty line.
            Quote::Minimal if !text.contains([',', '"']) && (view.titles.len() > 1 || !text.is_empty()) => inner,
            _ => format!("\"{}\"", inner.replace('"', "\"\"")),
        }
    };
    let titles: Vec<String> = view.titles.iter().map(|title| text(title)).collect();
    writeln!(out, "{}", titles.join(","))?;
    for row in view.rows() {
        let cells: Vec<String> = row?
            .iter()
            .map(|cell| match cell {
                Cell::Null => text(""),
                Cell::Integer(number) if quote == Quote::All => format!("\"{number}\""),
                Cell::Integer(number) => number.to_string(),
                Cell::Text(cell) => text(&safe::csv_cell(cell)),
            })
            .collect();
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

fn write_values(out: &mut dyn io::Write, view: &View) -> io::Result<()> {
    for row in view.rows() {
        let cells: Vec<String> = row?.iter().map(Cell::shown).collect();
        writeln!(out, "{}", cells.join(" "))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: [&str; 5] = ["ID", "Name", "Age", "Project ID", "Verdict"];

    fn grid() -> io::Result<Grid> {
        let rows: [Vec<Cell>; 3] = [
            vec!["b1".into(), "nightly".into(), 7200_u64.into(), Cell::Null, "stuck".into()],
            vec!["b2".into(), "\u{1b}[2J=1\n".into(), 900_u64.into(), "p2".into(), "recent".into()],
            vec!["b3".into(), "=HYPERLINK(\"x\")".into(), Cell::Null, "p1".into(), "stuck".into()],
        ];
        Grid::new(&COLUMNS, rows.map(Ok))
    }

    fn document() -> Value {
        json!({
            "schema": "cinder-backup-repair/scan", "schema_version": 1,
            "findings": [{"id": "b1", "more": 1}, {"id": "b2", "more": 2, "name": "\u{9b}\u{e0041}"}, {"id": "b3", "more": 3}],
            "summary": {"stuck": 2}
        })
    }

    fn written(options: &OutputOptions) -> String {
        let mut out = Vec::new();
        write(&mut out, &document(), "findings", grid, options).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_long_table_looks_as_if_it_was_laid_out_at_once() {
        let row = |number: usize| -> io::Result<Vec<Cell>> { Ok(vec![number.into(), "x".repeat(number % 50).into()]) };
        let table = |rows: usize, width: Option<u16>| {
            let (mut out, options) = (Vec::new(), OutputOptions { width, ..OutputOptions::default() });
            write(
                &mut out,
                &json!({}),
                "rows",
                || Grid::new(&["Number", "A Text of More Words Than It Needs"], (0..rows).map(row)),
                &options,
            )
            .unwrap();
            String::from_utf8(out).unwrap()
        };
        for width in [None, Some(200)] {
            let border = format!("+--------+-{}-+", "-".repeat(49));
            let expected = (0..2 * PORTION + 7).map(|number| format!("| {number:>6} | {:<49} |", "x".repeat(number % 50)));
            let titles = [border.clone(), format!("| Number | {:<49} |", "A Text of More Words Than It Needs"), border.clone()];
            let expected = titles.into_iter().chain(expected).chain([border]);
            let text = table(2 * PORTION + 7, width);
            assert!(text.lines().eq(expected), "{text:.2000}");
        }
        // Cells and titles are wrapped.
        let (long, first) = (table(2 * PORTION, Some(40)), table(PORTION, Some(40)));
        let lines = first.lines().count() - 1;
        assert!(lines > PORTION + 4 && long.lines().take(lines).eq(first.lines().take(lines)), "{long:.2000}");
        let width = first.lines().next().map(str::len);
        assert!(long.lines().all(|line| Some(line.len()) == width), "{long:.2000}");
        assert_eq!(long.lines().filter(|line| line.starts_with('+')).count(), 3);
    }

    #[test]
    fn a_table_looks_like_the_openstack_clients() {
        insta::assert_snapshot!(written(&OutputOptions::default()), @r#"
        +----+-----------------+------+------------+---------+
        | ID | Name            |  Age | Project ID | Verdict |
        +----+-----------------+------+------------+---------+
        | b1 | nightly         | 7200 | None       | stuck   |
        | b2 | \x1b[2J=1\n     |  900 | p2         | recent  |
        | b3 | =HYPERLINK("x") | None | p1         | stuck   |
        +----+-----------------+------+------------+---------+
        "#);
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let narrow = written(&OutputOptions { width: Some(40), ..OutputOptions::default() });
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        assert!(narrow.lines().count() > 7, "{narrow}");
    }

    /// comfy-table breaks a long cell in quadratic time, and adds up its columns in 16 bits.
    #[test]
    fn a_table_cuts_a_cell_that_nobody_could_read() {
        for (long, shown) in [("x".repeat(100_000), "x".repeat(1_000)), ("\u{202e}".repeat(1_000), r"\u{202e}".repeat(125))] {
            let grid = || Grid::new(&["ID", "Name"], [Ok(vec!["b1".into(), long.as_str().into()])]);
            let written = |options: &OutputOptions| {
                let mut out = Vec::new();
                write(&mut out, &json!({}), "rows", grid, options).unwrap();
                String::from_utf8(out).unwrap()
            };
            assert!(written(&OutputOptions::default()).contains(&format!("| {shown}… |")));
            for width in [40, 80, 300] {
                let laid_out = written(&OutputOptions { width: Some(width), ..OutputOptions::default() });
                assert!(laid_out.len() < 20_000 && laid_out.contains('…'), "{width}: {} bytes", laid_out.len());
            }
            for format in [Format::Csv, Format::Value] {
                let whole = written(&OutputOptions { format, ..OutputOptions::default() });
                let text = safe::terminal(&long);
                // CSV escapes a backslash.
                let text = if format == Format::Csv { text.replace('\\', "\\\\") } else { text };
                assert!(whole.contains(&text), "{format:?}");
            }
        }
    }

    #[test]
    fn colours_only_when_asked_for() {
        let colored = written(&OutputOptions { color: true, ..OutputOptions::default() });
        assert!(colored.contains("\u{1b}["), "{colored:?}");
        assert!(!colored.contains("\u{1b}[2J"), "{colored:?}");
        assert!(!written(&OutputOptions::default()).contains('\u{1b}'));
    }

    #[test]
    fn a_table_without_rows_is_an_empty_line() {
        let mut out = Vec::new();
        let empty = || Grid::new(&["ID", "Name"], []);
        write(&mut out, &document(), "findings", empty, &OutputOptions::default()).unwrap();
        assert_eq!(out, b"\n");
        out.clear();
        write(&mut out, &document(), "findings", empty, &OutputOptions { print_empty: true, ..OutputOptions::default() }).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "+----+------+\n| ID | Name |\n+----+------+\n+----+------+\n");
    }

    #[test]
    fn csv_quotes_like_python_and_disarms_formulas() {
        insta::assert_snapshot!(written(&OutputOptions { format: Format::Csv, ..OutputOptions::default() }), @r#"
        "ID","Name","Age","Project ID","Verdict"
        "b1","nightly",7200,"","stuck"
        "b2","\\x1b[2J=1\\n",900,"p2","recent"
        "b3","'=HYPERLINK(""x"")","","p1","stuck"
        "#);
    }

    #[test]
    fn csv_reads_back() {
        let text = written(&OutputOptions { format: Format::Csv, ..OutputOptions::default() });
        let rows: Vec<csv::StringRecord> = csv::Reader::from_reader(text.as_bytes()).records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows.last().unwrap().get(1), Some("'=HYPERLINK(\"x\")"));
    }

    #[test]
    fn quotes_stand_where_they_are_asked_for() {
        let document = json!({});
        let grid = || Grid::new(&["A", "B", "C"], [Ok(vec!["x, \"y\" \\".into(), 7_u64.into(), Cell::Null])]);
        let quoted = |quote| {
            let mut out = Vec::new();
            write(&mut out, &document, "", grid, &OutputOptions { format: Format::Csv, quote, ..OutputOptions::default() }).unwrap();
            String::from_utf8(out).unwrap().lines().last().unwrap().to_owned()
        };
        assert_eq!(quoted(Quote::All), r#""x, ""y"" \\","7","""#);
        assert_eq!(quoted(Quote::Minimal), r#""x, ""y"" \\",7,"#);
        assert_eq!(quoted(Quote::None), r#"x\, \"y\" \\,7,"#);
        assert_eq!(quoted(Quote::Nonnumeric), r#""x, ""y"" \\",7,"""#);
    }

    #[test]
    fn values_are_one_row_a_line() {
        insta::assert_snapshot!(written(&OutputOptions { format: Format::Value, ..OutputOptions::default() }), @r#"
        b1 nightly 7200 None stuck
        b2 \x1b[2J=1\n 900 p2 recent
        b3 =HYPERLINK("x") None p1 stuck
        "#);
    }

    #[test]
    fn columns_come_in_the_order_asked_for() {
        let options =
            OutputOptions { format: Format::Value, columns: strings(&["verdict", "project_id", "ID", "id"]), ..OutputOptions::default() };
        assert_eq!(written(&options), "stuck None b1\nrecent p2 b2\nstuck p1 b3\n");
    }

    #[test]
    fn an_unknown_column_is_an_error_that_lists_the_known() {
        let options = OutputOptions { columns: strings(&["id", "nmae"]), ..OutputOptions::default() };
        let error = write(&mut Vec::new(), &document(), "findings", grid, &options).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown column \"nmae\" in --column; the columns are ID, Name, Age, Project ID, Verdict; did you mean Name?"
        );
    }

    #[test]
    fn sorting_is_numeric_stable_and_leaves_null_last() {
        let by = |columns: &[&str]| {
            written(&OutputOptions {
                format: Format::Value,
                columns: strings(&["id"]),
                sort_columns: strings(columns),
                ..OutputOptions::default()
            })
        };
        assert_eq!(by(&["Age"]), "b2\nb1\nb3\n");
        assert_eq!(by(&["verdict", "project id"]), "b2\nb3\nb1\n");
        assert_eq!(by(&["verdict"]), "b2\nb1\nb3\n");
        assert_eq!(by(&["no such column"]), "b1\nb2\nb3\n");
        let options = OutputOptions {
            format: Format::Value,
            columns: strings(&["id"]),
            sort_columns: strings(&["verdict"]),
            sort_descending: true,
            ..OutputOptions::default()
        };
        assert_eq!(written(&options), "b1\nb3\nb2\n", "what is equal keeps its order");
    }

    #[test]
    fn json_is_the_document() {
        let text = written(&OutputOptions { format: Format::Json, ..OutputOptions::default() });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document());
        assert!(text.starts_with("{\n  \"schema\"") && text.ends_with("}\n"), "{text}");
        assert!(text.contains("\\u009b\\udb40\\udc41"), "{text}");
        let line = written(&OutputOptions { format: Format::Json, noindent: true, ..OutputOptions::default() });
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn json_rows_are_cut_down_and_sorted_in_their_envelope() {
        let options = OutputOptions {
            format: Format::Json,
            columns: strings(&["project_id", "Age"]),
            sort_columns: strings(&["age"]),
            noindent: true,
            ..OutputOptions::default()
        };
        let expected = json!({
            "schema": "cinder-backup-repair/scan", "schema_version": 1,
            "findings": [{"project_id": "p2", "age": 900}, {"project_id": null, "age": 7200}, {"project_id": "p1", "age": null}],
            "summary": {"stuck": 2}
        });
        assert_eq!(written(&options), format!("{expected}\n"));

        let whole = OutputOptions { columns: Vec::new(), format: Format::Yaml, ..options };
        let read: Value = serde_norway::from_str(&written(&whole)).unwrap();
        let more: Vec<i64> = read["findings"].as_array().unwrap().iter().map(|row| row["more"].as_i64().unwrap()).collect();
        assert_eq!(more, [2, 1, 3]);
    }

    #[test]
    fn a_closed_pipe_is_reported_as_it_is() {
        struct Closed;
        impl io::Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for format in [Format::Table, Format::Json, Format::Jsonl, Format::Yaml, Format::Csv, Format::Value] {
            let options = OutputOptions { format, ..OutputOptions::default() };
            match write(&mut Closed, &document(), "findings", grid, &options) {
                Err(ReportError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::BrokenPipe),
                other => unreachable!("{other:?}"),
            }
        }
    }
}
