//! The JSON schemas in docs/schema: what the code says, and what the tools print.
//!
//! `NODEMEND_WRITE_SCHEMAS=1 cargo test -p nodemend-lab --test schema` writes them anew. Within v1 they only grow.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use nodemend_cli::{Document, NoDetails};
use nodemend_lab::tools::workspace_binary;
use schemars::{Schema, schema_for};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn schemas() -> [(&'static str, &'static str, Schema); 3] {
    [
        (
            "mend-veth",
            "veth",
            schema_for!(Document<nodemend_veth::VethPair, NoDetails>),
        ),
        (
            "mend-ipam",
            "ipam",
            schema_for!(Document<nodemend_ipam::Reservation, nodemend_ipam::Details>),
        ),
        (
            "mend-sandboxes",
            "sandboxes",
            schema_for!(Document<nodemend_sandboxes::Sandbox, nodemend_sandboxes::Details>),
        ),
    ]
}

#[test]
fn the_schemas_in_docs_are_those_of_the_code() {
    let judging = schemas().map(|(tool, _, schema)| (tool, schema));
    // What this one prints is compared in rm_tool.rs.
    let removal = ("mend-rm", schema_for!(mend_rm::RemovalReport));
    // Of this one there is no recording: a node's is made when it is needed.
    let pods = (
        "mend-pods",
        schema_for!(Document<nodemend_pods::PodDir, nodemend_pods::Details>),
    );
    let containerd = ("mend-containerd", schema_for!(mend_containerd::ContainerdReport));
    for (tool, schema) in judging.into_iter().chain([removal, pods, containerd]) {
        let path = root().join(format!("docs/schema/{tool}.json"));
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("NODEMEND_WRITE_SCHEMAS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == text,
            "{} is not what the code says; see the head of this test",
            path.display()
        );
    }
}

#[test]
fn what_the_tools_print_is_as_the_schemas_say() {
    for (tool, fixture, schema) in schemas() {
        let validator = jsonschema::validator_for(schema.as_value()).unwrap();
        let recording = root().join(format!("fixtures/{fixture}-wiped.json"));
        let mut command = Command::new(workspace_binary(tool).unwrap());
        let output = command
            .args(["--output", "json", "--grace", "0s", "--replay"])
            .arg(&recording)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let faults: Vec<String> = validator
            .iter_errors(&report)
            .map(|fault| fault.to_string())
            .collect();
        assert!(faults.is_empty(), "{tool}: {faults:?}");
        assert!(!report["items"].as_array().unwrap().is_empty());

        let mut wrong = report;
        wrong["items"][0]["verdict"] = "perhaps".into();
        assert!(
            !validator.is_valid(&wrong),
            "a schema that takes anything checks nothing"
        );
    }
}
