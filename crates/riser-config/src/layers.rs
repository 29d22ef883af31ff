//! Where values come from: a file in TOML, then the environment, then flags. What comes later goes before.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

use crate::ConfigError;
use crate::options::{self, Kind, OPTIONS, Opt, SECTIONS};

/// Where the tools that people use find the admin API, and their secret. They are no options.
const OF_TOOLS: [&str; 2] = ["RISER_CONTROL_URL", "RISER_CONTROL_CREDENTIAL"];

/// Where a value stands, for whoever has to correct it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the file, at this line.
    Line(String, usize),
    Variable(String),
    Flag,
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(f, "{file} line {line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag => f.write_str("--set"),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// One, unless it is a list.
    pub texts: Vec<String>,
    pub origin: Origin,
}

/// What was set, by section and key.
pub type Values = BTreeMap<(&'static str, &'static str), Raw>;

/// Takes the values of a file.
pub(crate) fn take_file(values: &mut Values, name: &str, text: &str) -> Result<(), ConfigError> {
    let line_of = |at: usize| text.as_bytes().iter().take(at).filter(|&&b| b == b'\n').count() + 1;
    let at = |at: usize, why: String| ConfigError::bad(format!("{name} line {}: {why}", line_of(at)));
    let table = DeTable::parse(text)
        .map_err(|error| at(error.span().map_or(0, |span| span.start), error.message().replace('\n', "; ")))?;
    for (section, content) in table.get_ref() {
        let known = SECTIONS.iter().find(|(known, _)| *known == section.get_ref().as_ref());
        let Some((known, _)) = known else {
            let near = nearest(section.get_ref(), SECTIONS.iter().map(|(section, _)| *section));
            return Err(at(
                section.span().start,
                format!("there is no section [{}]{near}", visible(section.get_ref())),
            ));
        };
        let DeValue::Table(content) = content.get_ref() else {
            return Err(at(section.span().start, format!("{known} is a section: [{known}]")));
        };
        for (key, value) in content {
            let start = key.span().start;
            let opt = known_option(known, key.get_ref()).map_err(|why| at(start, why))?;
            if opt.secret {
                return Err(at(start, not_here(opt)));
            }
            let texts = texts_of(opt, value.get_ref()).map_err(|why| at(start, format!("{}: {why}", opt.name())))?;
            let origin = Origin::Line(name.to_owned(), line_of(start));
            values.insert((opt.section, opt.key), Raw { texts, origin });
        }
    }
    Ok(())
}

/// Takes the values of the environment. Other variables are none of ours, unless they look as if they were meant to be.
pub(crate) fn take_environment<'a>(
    values: &mut Values,
    variables: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), ConfigError> {
    for (name, value) in variables {
        if let Some(opt) = OPTIONS.iter().find(|opt| opt.variable() == name) {
            values.insert((opt.section, opt.key), split(opt, value, Origin::Variable(name.to_owned())));
        } else if is_meant(name) && !is_service_link(name) && !OF_TOOLS.contains(&name) {
            let near = nearest(name, OPTIONS.iter().map(Opt::variable));
            return Err(ConfigError::bad(format!("there is no option {}{near}", visible(name))));
        }
    }
    Ok(())
}

/// Takes what was set with `--set section.key=value`.
pub(crate) fn take_flags(values: &mut Values, flags: &[String]) -> Result<(), ConfigError> {
    for flag in flags {
        let bad = |why: String| ConfigError::bad(format!("--set: {why}"));
        // What stands behind may be a secret, so that it is never repeated.
        let (name, value) = flag.split_once('=').ok_or_else(|| bad("not section.key=value".into()))?;
        let (section, key) = name.split_once('.').ok_or_else(|| bad("not section.key=value".into()))?;
        let opt = known_option(section, key).map_err(bad)?;
        if opt.secret {
            return Err(bad(not_here(opt)));
        }
        values.insert((opt.section, opt.key), split(opt, value, Origin::Flag));
    }
    Ok(())
}

fn known_option(section: &str, key: &str) -> Result<&'static Opt, String> {
    options::find(section, key).ok_or_else(|| {
        let name = format!("{section}.{key}");
        let near = nearest(&name, OPTIONS.iter().filter(|opt| !opt.secret).map(Opt::name));
        format!("there is no option {}{near}", visible(&name))
    })
}

fn not_here(opt: &Opt) -> String {
    format!("{} is a secret: set {}_file, or the variable {}", opt.name(), opt.name(), opt.variable())
}

fn split(opt: &Opt, value: &str, origin: Origin) -> Raw {
    let texts = match opt.kind {
        Kind::List => value.split(',').map(|text| text.trim().to_owned()).collect(),
        Kind::Text | Kind::Number => vec![value.to_owned()],
    };
    Raw { texts, origin }
}

fn texts_of(opt: &Opt, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match (opt.kind, value) {
        (Kind::Text, DeValue::String(text)) => Ok(vec![text.to_string()]),
        (Kind::Number, DeValue::Integer(number)) if number.radix() == 10 => Ok(vec![number.as_str().to_owned()]),
        (Kind::List, DeValue::Array(list)) => {
            let text = |value: &DeValue<'_>| match value {
                DeValue::String(text) => Ok(text.to_string()),
                other => Err(format!("a list of strings is needed, and {} is in it", kind_of(other))),
            };
            list.iter().map(|value| text(value.get_ref())).collect()
        }
        (kind, other) => {
            let needed = match kind {
                Kind::Text => "a string in quotes",
                Kind::List => "a list of strings",
                Kind::Number => "a whole number without quotes",
            };
            Err(format!("{needed} is needed, not {}", kind_of(other)))
        }
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether a variable begins like one of an option.
fn is_meant(name: &str) -> bool {
    let mut prefixes = SECTIONS.iter().map(|(section, _)| format!("RISER_{}_", section.to_ascii_uppercase()));
    prefixes.any(|prefix| name.starts_with(&prefix))
}

/// What Kubernetes sets in every container for a service that is called riser-edge, riser-nats and so on.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

/// A hint at the name that was probably meant; nothing when none is near.
fn nearest<T: AsRef<str>>(name: &str, known: impl Iterator<Item = T>) -> String {
    let near =
        known.map(|known| (strsim::damerau_levenshtein(name, known.as_ref()), known)).min_by_key(|(far, _)| *far);
    match near {
        Some((far, known)) if far <= 2 + known.as_ref().len() / 4 => format!("; the nearest is {}", known.as_ref()),
        _ => String::new(),
    }
}

/// A name that somebody wrote, short and fit for a terminal.
fn visible(name: &str) -> String {
    let short: String = name.chars().take(80).collect();
    riser_ops::visible(&short).into_owned()
}
