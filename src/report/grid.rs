//! A result as a table, JSON, YAML, CSV or plain values, with the options of the OpenStack clients for columns and sorting.
//!
//! The formats follow cliff, the library of those clients, so that scripts for them can read this program's output: borders, `None` for
//! NULL, quotes in CSV around everything but numbers, NULL last when sorting. If the terminal is too narrow for a table, the rows
//! are written one below the other ([`expanded`]). May use `spool` and `report::expanded`, `json`, `safe` and
//! `yaml` only: the rows are in a temporary file if they are many.

use std::io;

use anstyle::AnsiColor;
use clap::ValueEnum;
use comfy_table::{Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::expanded::{self, ColumnWidth};
use super::{json, safe, yaml};
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

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Integer(number)
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

/// A row of a [`Grid`]. A missing cell is NULL.
pub type Row = Vec<Cell>;

/// The rows of a result as a table.
#[derive(Debug, Default)]
pub struct Grid {
    /// The columns' titles, for example `Project ID`.
    columns: Vec<&'static str>,
    rows: Spool<Row>,
}

impl Grid {
    /// The rows of a list.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub fn of(columns: &[&'static str], rows: impl IntoIterator<Item = Row>) -> io::Result<Self> {
        Ok(Self { columns: columns.to_vec(), rows: Spool::of(rows)? })
    }

    /// The rows of items that are read one by one.
    ///
    /// # Errors
    /// Those of reading and of the temporary file.
    pub fn read(columns: &[&'static str], rows: impl IntoIterator<Item = io::Result<Row>>) -> io::Result<Self> {
        let mut grid = Self { columns: columns.to_vec(), rows: Spool::default() };
        for row in rows {
            grid.rows.push(&row?)?;
        }
        Ok(grid)
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

/// How a result is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputOptions {
    /// The format.
    pub format: Format,
    /// The columns in this order; all columns if empty. Case is ignored, and `_` matches a space.
    pub columns: Vec<String>,
    /// The columns to sort by, most significant first. Unknown columns are ignored, as in the OpenStack clients.
    pub sort_columns: Vec<String>,
    /// Sort in descending order.
    pub descending: bool,
    /// JSON on one line.
    pub noindent: bool,
    /// Which CSV cells are quoted.
    pub quote: Quote,
    /// Print a table's titles even if it has no rows.
    pub print_empty: bool,
    /// The width of the terminal, to which a table is fitted; `None` for no limit.
    pub width: Option<u16>,
    /// Whether a table may have colours.
    pub color: bool,
}

/// Why a result could not be written.
#[derive(Debug, Error)]
pub enum ReportError {
    /// `--column` names an unknown column.
    #[error("unknown column {column:?} in --column; the columns are {known}")]
    UnknownColumn {
        /// The unknown column.
        column: String,
        /// The known columns, separated by commas.
        known: String,
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
    /// The places of the columns in a row.
    places: Vec<usize>,
    rows: Spool<Row>,
    /// The former places of the rows, if they were sorted.
    order: Option<Vec<usize>>,
    cut: bool,
}

impl View {
    fn new(Grid { columns, mut rows }: Grid, options: &OutputOptions) -> Result<Self, ReportError> {
        let place = |wanted: &str| columns.iter().position(|column| key(column) == key(wanted));
        let mut places = Vec::new();
        for column in &options.columns {
            let Some(found) = place(column) else {
                return Err(ReportError::UnknownColumn { column: column.clone(), known: columns.join(", ") });
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
        let order = if sort.is_empty() { None } else { Some(sorted(&rows, &sort, options.descending)?) };
        rows.rearrange(order.iter().flatten().copied().chain((0..rows.len()).filter(|_| order.is_none())));
        Ok(Self { titles: places.iter().filter_map(|&place| columns.get(place).copied()).collect(), places, rows, order, cut })
    }

    /// The rows, read one by one.
    fn rows(&self) -> impl Iterator<Item = io::Result<Row>> {
        self.rows.iter().map(|row| row.map(|mut row| self.places.iter().map(|place| take(&mut row, *place)).collect()))
    }

    /// The document with its rows reduced and sorted like these.
    fn reduced(&self, document: &impl Serialize, rows_key: &str) -> io::Result<Value> {
        let mut document = serde_json::to_value(document)?;
        let Some(member) = document.get_mut(rows_key) else { return Ok(document) };
        if self.cut {
            let object = |row: io::Result<Row>| -> io::Result<Map<String, Value>> {
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

    /// The width of each column.
    fn widths(&self) -> io::Result<Vec<ColumnWidth>> {
        let mut widths: Vec<ColumnWidth> = self.titles.iter().map(|title| ColumnWidth::of_title(title)).collect();
        for row in self.rows() {
            row?.iter().zip(&mut widths).for_each(|(cell, width)| width.add(&cell.in_table()));
        }
        Ok(widths)
    }
}

/// The places of rows in the order of some columns.
fn sorted(rows: &Spool<Row>, columns: &[usize], descending: bool) -> io::Result<Vec<usize>> {
    let keys = rows.iter().map(|row| row.map(|mut row| columns.iter().map(|place| take(&mut row, *place)).collect::<Row>()));
    let mut keys: Vec<(Row, usize)> = keys.zip(0..).map(|(key, place)| Ok((key?, place))).collect::<io::Result<_>>()?;
    // Equal rows keep their order, as in cliff.
    keys.sort_by(|(a, _), (b, _)| if descending { b.cmp(a) } else { a.cmp(b) });
    Ok(keys.into_iter().map(|(_, place)| place).collect())
}

/// Takes a cell out of a row, in which a column may be chosen once only.
fn take(row: &mut Row, place: usize) -> Cell {
    row.get_mut(place).map_or(Cell::Null, |cell| std::mem::replace(cell, Cell::Null))
}

fn write_table(out: &mut dyn io::Write, view: &View, options: &OutputOptions) -> io::Result<()> {
    // cliff prints an empty line for a table without rows.
    if view.rows.is_empty() && !options.print_empty {
        return out.write_all(b"\n");
    }
    let columns = view.widths()?;
    // Each column has a border and two spaces.
    let sum = |width: fn(&ColumnWidth) -> usize| columns.iter().map(|column| width(column) + 3).sum::<usize>() + 1;
    if let Some(width) = options.width.map(usize::from).filter(|width| sum(ColumnWidth::least) > *width && !view.rows.is_empty()) {
        let rows = view.rows().map(|row| row.map(|row| row.iter().map(Cell::in_table).collect()));
        let style = |title: &str, word: &str| tint(title, word).map(|(_, color)| color.on_default());
        let layout = expanded::Layout { width, style: if options.color { Some(&style) } else { None } };
        return expanded::write(out, &view.titles, view.rows.len(), rows, &layout);
    }
    // comfy-table counts the two spaces of a column.
    let with_spaces = |width: usize| Width::Fixed(u16::try_from(width + 2).unwrap_or(u16::MAX));
    let fits = options.width.is_none_or(|width| sum(ColumnWidth::whole) <= usize::from(width));
    let constraint = |column: &ColumnWidth| {
        let (least, whole) = (with_spaces(column.least()), with_spaces(column.whole()));
        if fits && !view.rows.is_empty() { ColumnConstraint::Absolute(whole) } else { ColumnConstraint::LowerBoundary(least) }
    };
    // A column is aligned to the right if its first cell is a number, as in cliff.
    let first = view.rows().next().transpose()?.unwrap_or_default();
    let mut constraints: Vec<ColumnConstraint> = columns.iter().map(constraint).collect();
    // The layout of a row takes several KB of memory, so a long table is laid out in portions.
    let (mut rows, mut begin, mut end) = (view.rows(), 0, String::new());
    loop {
        let portion: Vec<Row> = rows.by_ref().take(PORTION).collect::<io::Result<_>>()?;
        if portion.is_empty() && begin > 0 {
            return writeln!(out, "{end}");
        }
        let table = layout(view, &portion, options, &constraints, &first);
        let text = table.to_string();
        let (lines, bottom) = text.rsplit_once('\n').unwrap_or(("", &text));
        // The titles with the lines above and below them come first, and the bottom line comes last.
        lines.lines().skip(begin).try_for_each(|line| writeln!(out, "{line}"))?;
        // All portions have the widths of the first one, which its bottom line shows.
        constraints = bottom
            .trim_matches('+')
            .split('+')
            .map(|line| ColumnConstraint::Absolute(Width::Fixed(u16::try_from(line.len()).unwrap_or(u16::MAX))))
            .collect();
        (begin, end) = (3, bottom.to_owned());
    }
}

/// A table of some rows, with the width of each column.
fn layout(view: &View, rows: &[Row], options: &OutputOptions, widths: &[ColumnConstraint], first: &Row) -> Table {
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
    for (place, width) in widths.iter().enumerate() {
        let Some(column) = table.column_mut(place) else { continue };
        column.set_constraint(*width);
        if matches!(first.get(place), Some(Cell::Integer(_))) {
            column.set_cell_alignment(CellAlignment::Right);
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

    fn grid() -> io::Result<Grid> {
        let rows = [
            vec!["b1".into(), "nightly".into(), 7200_i64.into(), Cell::Null, "stuck".into()],
            vec!["b2".into(), "\u{1b}[2J=1\n".into(), 900_i64.into(), "p2".into(), "recent".into()],
            vec!["b3".into(), "=HYPERLINK(\"x\")".into(), Cell::Null, "p1".into(), "stuck".into()],
        ];
        Grid::of(&["ID", "Name", "Age", "Project ID", "Verdict"], rows)
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
        let rows: Vec<Vec<Cell>> = (0..2 * PORTION + 7).map(|number| vec![number.into(), "x".repeat(number % 50).into()]).collect();
        let grid = || Grid::of(&["Number", "Text"], rows.clone());
        for width in [None, Some(200)] {
            let mut out = Vec::new();
            write(&mut out, &json!({}), "rows", grid, &OutputOptions { width, ..OutputOptions::default() }).unwrap();
            let text = String::from_utf8(out).unwrap();
            let border = format!("+--------+-{}-+", "-".repeat(49));
            let expected = rows.iter().map(|row| format!("| {:>6} | {:<49} |", row[0].shown(), row[1].shown()));
            let expected =
                [border.clone(), format!("| Number | {:<49} |", "Text"), border.clone()].into_iter().chain(expected).chain([border]);
            assert!(text.lines().eq(expected), "{text:.2000}");
        }
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
            let grid = || Grid::of(&["ID", "Name"], [vec!["b1".into(), long.as_str().into()]]);
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
        let empty = || Grid::of(&["ID", "Name"], []);
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
        let grid = || Grid::of(&["A", "B", "C"], [vec!["x, \"y\" \\".into(), 7_i64.into(), Cell::Null]]);
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
        assert_eq!(error.to_string(), "unknown column \"nmae\" in --column; the columns are ID, Name, Age, Project ID, Verdict");
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
            descending: true,
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
