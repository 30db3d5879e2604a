//! The JSON of a network configuration: a list of plugins, or a single one.
//!
//! The rules are libcni's (`libcni/conf.go`, containernetworking/cni).

use serde_json::{Map, Value};

use crate::names;

/// The newest version of the CNI specification that `cniVersions` may choose.
const NEWEST: (u32, u32, u32) = (1, 1, 0);

/// An object of JSON.
pub(crate) type Object = Map<String, Value>;

/// Which form a file must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A list, with the key `plugins` (`*.conflist`).
    List,
    /// One plugin (`*.conf`, `*.json`).
    Single,
    /// Whichever it is (libcni's cache).
    Either,
}

/// A network configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfList {
    pub(crate) name: String,
    /// Empty if the file names none.
    pub(crate) cni_version: String,
    pub(crate) disable_gc: bool,
    /// At least one.
    pub(crate) plugins: Vec<Plugin>,
}

/// One plugin's part of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plugin {
    /// The key `type`.
    pub(crate) kind: String,
    pub(crate) conf: Object,
}

pub(crate) fn parse(bytes: &[u8], form: Form) -> Result<ConfList, String> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => from_object(object, form),
        Ok(_) => Err("it is JSON, but not an object".to_owned()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

pub(crate) fn from_object(mut object: Object, form: Form) -> Result<ConfList, String> {
    let is_list = form == Form::List || (form == Form::Either && object.contains_key("plugins"));
    let name = text(&object, "name")?.unwrap_or_default().to_owned();
    if !names::is_id(&name) {
        return Err(format!(
            "\"{}\" is no name for a network",
            names::printable(&name, 60)
        ));
    }
    let cni_version = version_of(&object)?;
    let disable_gc = flag(&object, "disableGC")?;
    let plugins = match object.remove("plugins") {
        Some(Value::Array(plugins)) if is_list => {
            plugins.into_iter().map(plugin).collect::<Result<_, _>>()?
        }
        Some(_) if is_list => return Err("its \"plugins\" is not a list".to_owned()),
        None if is_list => Vec::new(),
        Some(_) | None => vec![plugin(Value::Object(object))?],
    };
    if plugins.is_empty() {
        return Err("it lists no plugins".to_owned());
    }
    Ok(ConfList {
        name,
        cni_version,
        disable_gc,
        plugins,
    })
}

fn plugin(value: Value) -> Result<Plugin, String> {
    let Value::Object(conf) = value else {
        return Err("one of its plugins is not an object".to_owned());
    };
    match text(&conf, "type")? {
        None | Some("") => Err("one of its plugins has no \"type\"".to_owned()),
        Some(kind) => Ok(Plugin {
            kind: kind.to_owned(),
            conf,
        }),
    }
}

/// The key `cniVersion`, or the newest of `cniVersions` that this crate knows.
fn version_of(object: &Object) -> Result<String, String> {
    let named = text(object, "cniVersion")?.unwrap_or_default();
    let offered = match object.get("cniVersions") {
        None => return Ok(named.to_owned()),
        Some(Value::Array(offered)) => offered,
        Some(_) => return Err("its \"cniVersions\" is not a list".to_owned()),
    };
    let mut newest = None;
    for version in offered
        .iter()
        .map(|value| value.as_str().unwrap_or("?"))
        .chain(Some(named))
    {
        if version.is_empty() {
            continue;
        }
        let number = version_number(version)
            .ok_or_else(|| format!("\"{}\" is no CNI version", names::printable(version, 20)))?;
        if number <= NEWEST && newest.is_none_or(|(best, _)| number > best) {
            newest = Some((number, version));
        }
    }
    Ok(newest.map_or(named, |(_, version)| version).to_owned())
}

/// `0.4.0` as three numbers; no version at all means 0.1.0, as in libcni.
pub(crate) fn version_number(version: &str) -> Option<(u32, u32, u32)> {
    if version.is_empty() {
        return Some((0, 1, 0));
    }
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let number = (
        parts.next()??,
        parts.next().unwrap_or(Some(0))?,
        parts.next().unwrap_or(Some(0))?,
    );
    parts.next().is_none().then_some(number)
}

/// A text that may be missing, but must be text.
pub(crate) fn text<'a>(object: &'a Object, key: &str) -> Result<Option<&'a str>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("its \"{key}\" is not text")),
    }
}

/// A boolean, or the text `true` or `false`, as libcni reads it.
fn flag(object: &Object, key: &str) -> Result<bool, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(format!("its \"{key}\" is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_single_plugins_give_the_same() {
        let list = br#"{"name":"pods","cniVersion":"0.4.0","plugins":[{"type":"bridge"}]}"#;
        let single = br#"{"name":"pods","cniVersion":"0.4.0","type":"bridge"}"#;
        for (bytes, form) in [
            (&list[..], Form::List),
            (list, Form::Either),
            (&single[..], Form::Single),
            (single, Form::Either),
        ] {
            let conf = parse(bytes, form).unwrap();
            assert_eq!(
                (&*conf.name, &*conf.cni_version, &*conf.plugins[0].kind),
                ("pods", "0.4.0", "bridge")
            );
        }
    }

    #[test]
    fn what_libcni_refuses_is_refused() {
        for (json, form, says) in [
            ("", Form::List, "not JSON"),
            ("[]", Form::List, "not an object"),
            ("{}", Form::List, "no name"),
            (r#"{"name":"../../etc","type":"bridge"}"#, Form::Single, "no name"),
            (r#"{"name":7,"type":"bridge"}"#, Form::Single, "not text"),
            (r#"{"name":"a"}"#, Form::Single, "no \"type\""),
            (
                r#"{"name":"a","plugins":[{"type":"bridge"}]}"#,
                Form::Single,
                "no \"type\"",
            ),
            (r#"{"name":"a"}"#, Form::List, "no plugins"),
            (r#"{"name":"a","plugins":[]}"#, Form::List, "no plugins"),
            (r#"{"name":"a","plugins":{}}"#, Form::List, "not a list"),
            (r#"{"name":"a","plugins":[3]}"#, Form::List, "not an object"),
            (
                r#"{"name":"a","plugins":[{"type":""}]}"#,
                Form::List,
                "no \"type\"",
            ),
            (
                r#"{"name":"a","disableGC":"maybe","type":"x"}"#,
                Form::Single,
                "neither",
            ),
            (
                r#"{"name":"a","cniVersions":["x"],"type":"x"}"#,
                Form::Single,
                "no CNI version",
            ),
        ] {
            let error = parse(json.as_bytes(), form).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes(), Form::List).is_err());
    }

    #[test]
    fn the_newest_known_version_of_several_is_chosen() {
        for (json, version) in [
            (r#"{"name":"a","type":"x"}"#, ""),
            (
                r#"{"name":"a","type":"x","cniVersion":"0.3.1","cniVersions":["0.4.0","1.0.0"]}"#,
                "1.0.0",
            ),
            (
                r#"{"name":"a","type":"x","cniVersions":["9.0.0","0.4.0"]}"#,
                "0.4.0",
            ),
            (
                r#"{"name":"a","type":"x","cniVersion":"1.1.0","cniVersions":["1.0.0"]}"#,
                "1.1.0",
            ),
        ] {
            assert_eq!(parse(json.as_bytes(), Form::Single).unwrap().cni_version, version);
        }
        assert_eq!(version_number("1.0"), Some((1, 0, 0)));
        assert_eq!(version_number("1.0.0.0"), None);
        assert_eq!(version_number("v1"), None);
    }

    #[test]
    fn gc_can_be_switched_off_in_both_spellings() {
        for json in [
            r#"{"name":"a","type":"x","disableGC":true}"#,
            r#"{"name":"a","type":"x","disableGC":"True"}"#,
        ] {
            assert!(parse(json.as_bytes(), Form::Single).unwrap().disable_gc);
        }
    }
}
