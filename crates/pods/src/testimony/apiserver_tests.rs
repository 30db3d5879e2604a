#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

use super::*;

fn named(certified: Option<&str>, told: Option<&str>, host: &str) -> Result<String, String> {
    node(certified.map(str::to_owned), told.map(str::to_owned), || {
        Ok(host.to_owned())
    })
}

#[test]
fn the_node_is_what_its_certificate_says_and_two_names_are_none() {
    assert_eq!(named(Some("a"), None, "c").unwrap(), "a");
    assert_eq!(named(Some("a"), Some("a"), "c").unwrap(), "a");
    assert_eq!(named(None, Some("b"), "c").unwrap(), "b");
    assert_eq!(named(None, None, "c.example.org").unwrap(), "c.example.org");
    assert!(
        named(Some("a"), Some("b"), "c")
            .unwrap_err()
            .contains("for node a, and its flags say b")
    );
    for bad in ["", "a/b", "a,spec.x=y", "A", "a%20"] {
        assert!(named(None, None, bad).is_err(), "{bad}");
    }
}

fn asking(machine: Option<&str>) -> Asking {
    Asking {
        config: Kubeconfig {
            host: "127.0.0.1".into(),
            port: 1,
            prefix: String::new(),
            server_name: None,
            authorities: Vec::new(),
            identity: None,
            token: None,
        },
        node: "node-1".into(),
        machine: machine.map(str::to_owned),
    }
}

#[test]
fn a_node_of_that_name_on_another_machine_has_other_pods() {
    let node = |id: &str| {
        format!(r#"{{"kind":"Node","apiVersion":"v1","status":{{"nodeInfo":{{"machineID":"{id}"}}}}}}"#)
    };
    assert!(same_machine(node("abc").as_bytes(), &asking(Some("abc"))).is_ok());
    let said = same_machine(node("def").as_bytes(), &asking(Some("abc"))).unwrap_err();
    assert!(said.contains("another machine"), "{said}");
    // One of the two does not tell.
    assert!(same_machine(node("").as_bytes(), &asking(Some("abc"))).is_ok());
    assert!(same_machine(node("def").as_bytes(), &asking(None)).is_ok());
    for garbage in ["", "{}", r#"{"kind":"Status"}"#] {
        assert!(
            same_machine(garbage.as_bytes(), &asking(None)).is_err(),
            "{garbage}"
        );
    }
}
