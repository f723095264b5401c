//! Gauges in Prometheus' text format, as node_exporter's textfile collector reads it. Pure.

use std::collections::BTreeMap;

/// A number with its name, what it means, and its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// The name; the unit is its suffix.
    pub name: &'static str,
    /// What it means; the same for all gauges of a name.
    pub help: &'static str,
    /// Names and values of labels.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

/// The gauges as text, each name with its help once.
pub fn text(gauges: &[Gauge]) -> String {
    let mut names: BTreeMap<&str, Vec<&Gauge>> = BTreeMap::new();
    for gauge in gauges {
        names.entry(gauge.name).or_default().push(gauge);
    }
    let mut text = String::new();
    for (name, gauges) in names {
        let help = gauges.first().map_or("", |gauge| gauge.help);
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        for gauge in gauges {
            let labels: Vec<String> = gauge.labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            text.push_str(&format!("{name}{labels} {}\n", gauge.value));
        }
    }
    text
}

/// The value of a label. Two values never become the same, because a series that is there twice makes the whole file invalid.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_help_once_and_labels_are_escaped() {
        let gauge = |name, labels: &[(&'static str, &str)], value| Gauge {
            name,
            help: "Things.",
            labels: labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect(),
            value,
        };
        let gauges =
            [gauge("b", &[("host", "a\"b\\c\nd")], 1.0), gauge("a_seconds", &[], 1.5), gauge("b", &[("host", "x"), ("y", "")], -2.0)];
        let expected = "# HELP a_seconds Things.\n# TYPE a_seconds gauge\na_seconds 1.5\n# HELP b Things.\n# TYPE b gauge\n\
            b{host=\"a\\\"b\\\\c\\nd\"} 1\nb{host=\"x\",y=\"\"} -2\n";
        assert_eq!(text(&gauges), expected);
    }
}
