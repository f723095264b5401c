//! The documents against the code: links lead somewhere, and the files, items and modules that the developers' pages name exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::house::SEES;
use crate::servers::root;

/// The pages that name files and items of the code.
const FOR_DEVELOPERS: [&str; 3] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "tests/README.md"];

/// The files below a folder with this extension.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found
}

fn pages() -> Vec<PathBuf> {
    let alone = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = alone.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.extend(["docs", "sql", "tests", "benches"].iter().flat_map(|folder| files(folder, "md")));
    pages
}

/// A page without its code blocks.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    let (mut is_fenced, mut may_begin) = (false, true);
    let lines = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        is_fenced ^= is_fence;
        // Indented lines after a blank one are code; others continue an item of a list.
        let is_code = may_begin && line.starts_with("    ");
        may_begin = is_code || line.is_empty();
        !is_fence && !is_fenced && !is_code
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim().to_lowercase());
    headings
        .map(|heading| heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-"))
        .collect()
}

/// The targets of a page's links.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

#[test]
fn every_link_has_a_target() {
    let mut faults = Vec::new();
    for page in pages() {
        let prose = prose(&page);
        for link in links(&prose).filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            if !target.exists() || anchor.is_some_and(|anchor| !anchors(&target).contains(anchor)) {
                faults.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(faults.is_empty(), "links that lead nowhere:\n{}", faults.join("\n"));
}

/// Every name that the code defines, with the paths of the files that define it.
fn definitions() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in ["src", "tests"].iter().flat_map(|folder| files(folder, "rs")) {
        let relative = path.strip_prefix(root()).unwrap().display().to_string();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line = line.trim();
            let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
            let keywords = ["fn", "struct", "enum", "trait", "const", "static", "mod", "type"];
            let defined = words.clone().zip(words.clone().skip(1)).find(|(keyword, _)| keywords.contains(keyword)).map(|(_, name)| name);
            // A variant, a field or a re-exported name.
            let first = words.find(|word| *word != "pub");
            for name in defined.into_iter().chain(first) {
                found.entry(name.to_owned()).or_default().push(relative.clone());
            }
            if line.starts_with("pub use ") {
                for name in line.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
                    found.entry(name.to_owned()).or_default().push(relative.clone());
                }
            }
        }
    }
    found
}

/// Whether a span of code names something that must exist but does not.
fn is_unknown(span: &str, definitions: &BTreeMap<String, Vec<String>>) -> bool {
    let is_name = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
    let folders = ["src/", "tests/", "docs/", "sql/", "benches/", "vendor/", ".ci/", ".cargo/"];
    if folders.iter().any(|folder| span.starts_with(folder)) {
        let is_pattern =
            span.contains(['*', '<', ' ', '{']) || span.split(['/', '.']).any(|part| part.len() > 1 && part == part.to_uppercase());
        return !is_pattern && !root().join(span).exists();
    }
    let span = span.split('(').next().unwrap();
    let words: Vec<&str> = span.split("::").collect();
    if !words.iter().all(|word| is_name(word)) || words[0] == "std" {
        return false;
    }
    let is_type = |word: &str| word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().any(|c| c.is_ascii_lowercase());
    if words.len() == 1 {
        // A single word in lower case may be a column, a status or a command.
        return is_type(span) && !definitions.contains_key(span);
    }
    let module = [format!("src/{}/", words[0]), format!("src/{}.rs", words[0])];
    let is_module = module.iter().any(|path| root().join(path).exists());
    let is_in = |file: &String| !is_module || module.iter().any(|path| file.starts_with(path.as_str()));
    let names = if is_module { &words[1..] } else { &words[..] };
    !names.iter().all(|name| definitions.get(*name).is_some_and(|files| files.iter().any(is_in)))
}

#[test]
fn files_and_items_that_the_pages_name_exist() {
    let definitions = definitions();
    for known in
        ["storage::ObjectStore::stat", "src/lib.rs", "ObjectStore", "StorageErrorKind::Transient", "domain::decide", "std::io::Read"]
    {
        assert!(!is_unknown(known, &definitions), "{known}");
    }
    for unknown in ["storage::ObjectStore::status_of", "src/libs.rs", "ObjektStore", "domain::connect_timeout_x::x"] {
        assert!(is_unknown(unknown, &definitions), "{unknown}");
    }
    let mut faults = Vec::new();
    for page in FOR_DEVELOPERS {
        let prose = prose(&root().join(page));
        let spans = prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        faults.extend(spans.filter(|span| is_unknown(span, &definitions)).map(|span| format!("{page}: {span}")));
    }
    assert!(faults.is_empty(), "names that nothing has:\n{}", faults.join("\n"));
}

#[test]
fn the_picture_of_the_modules_agrees_with_the_enforced_map() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let picture = page.split_once("```mermaid\n").unwrap().1.split_once("\n```").unwrap().0;
    let mut drawn = BTreeSet::new();
    for line in picture.lines().filter(|line| line.contains(" --> ")) {
        let mut sides = line.trim().split(" --> ").map(|side| side.split(" & ").map(str::trim).collect::<Vec<_>>());
        let (from, to) = (sides.next().unwrap(), sides.next().unwrap());
        for (from, to) in from.iter().flat_map(|from| to.iter().map(move |to| (from, to))) {
            let seen = SEES.iter().find(|(module, _)| module == from).unwrap_or_else(|| panic!("{from} is not a module")).1;
            assert!(seen.contains(to), "the picture lets {from} use {to}");
            drawn.extend([*from, *to].into_iter().filter(|module| *module != "domain"));
        }
    }
    // The picture leaves out modules that use no other one, because their arrows would hide the rest.
    let all: BTreeSet<&str> = SEES.iter().filter(|(_, seen)| !seen.is_empty()).map(|(module, _)| *module).collect();
    assert_eq!(drawn, all, "modules in the picture");
}
