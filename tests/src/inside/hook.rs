//! A CNI plugin, chained last, that does nothing until a test asks it to be slow or to fail.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

/// Its type in a configuration, and the name of its file.
pub const NAME: &str = "lab-hook";

/// While this file exists, every ADD waits in the plugin.
pub(crate) const HOLD_ADD: &str = "/run/lab/hook/hold-add";

/// While this file exists, every DEL fails with the text in it.
pub(crate) const FAIL_DEL: &str = "/run/lab/hook/fail-del";

/// One file for each ADD that waits, named after the container.
pub(crate) const WAITING: &str = "/run/lab/hook/waiting";

/// The plugin as the CNI specification wants it: the verb in the environment, the configuration on standard input.
pub fn run() -> ExitCode {
    let mut input = String::new();
    let _ = std::io::stdin().read_to_string(&mut input);
    let config: Value = serde_json::from_str(&input).unwrap_or_default();
    let answer = match variable("CNI_COMMAND").as_str() {
        "ADD" => {
            wait_while_held(&variable("CNI_CONTAINERID"));
            Ok(config.get("prevResult").cloned())
        }
        "DEL" => fs::read_to_string(FAIL_DEL).map_or(Ok(None), Err),
        "VERSION" => Ok(Some(versions(&config))),
        _ => Ok(None),
    };
    say(answer, &config)
}

/// Answers as a plugin: a result, nothing, or an error object.
pub(crate) fn say(answer: Result<Option<Value>, String>, config: &Value) -> ExitCode {
    let (document, code) = match answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(message) => {
            let version = config.get("cniVersion").cloned().unwrap_or_default();
            (
                json!({"cniVersion": version, "code": 100, "msg": message.trim()}),
                ExitCode::FAILURE,
            )
        }
    };
    let _ = writeln!(std::io::stdout(), "{document}");
    code
}

/// The answer to VERSION.
pub(crate) fn versions(config: &Value) -> Value {
    let asked = config
        .get("cniVersion")
        .cloned()
        .unwrap_or_else(|| json!("0.4.0"));
    json!({"cniVersion": asked, "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn wait_while_held(container: &str) {
    if !Path::new(HOLD_ADD).exists() {
        return;
    }
    let sign = PathBuf::from(WAITING).join(container);
    let _ = fs::create_dir_all(WAITING);
    let _ = fs::write(&sign, "");
    while Path::new(HOLD_ADD).exists() {
        sleep(Duration::from_millis(20));
    }
    let _ = fs::remove_file(sign);
}
