#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;
use crate::testimony::http::Token;
use crate::testimony::listed::{on_a_thread, within};
use crate::testimony::standin::{Says, ok, serve};

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
        names: Names::default(),
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

/// An API server on loopback with a certificate of an authority, and what must be trusted to believe it.
fn server(
    answer: impl Fn(&str) -> Says + Send + 'static,
) -> (Asking, String, std::sync::mpsc::Receiver<String>) {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let (address, asked) = serve(&certificate.pem(), &key.serialize_pem(), answer);
    let mut asking = asking(Some("abc"));
    asking.config.port = address.port();
    asking.config.authorities = authority.clone().into_bytes();
    asking.config.token = Some(Token::parse("abc").unwrap());
    (asking, authority, asked)
}

const NODE: &str = r#"{"kind":"Node","status":{"nodeInfo":{"machineID":"abc"}}}"#;
const LIST: &str = r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[
    {"metadata":{"uid":"7f1d2a3b-0000-4000-8000-000000000001","name":"etcd-node-1","namespace":"kube-system",
    "annotations":{"kubernetes.io/config.mirror":"d41d8cd98f00b204e9800998ecf8427e"}}}]}"#;

fn answer(asking: &Asking) -> Result<Known, String> {
    on_a_thread(within(Duration::from_secs(10), ask(asking))).unwrap()
}

#[test]
fn t13_the_api_server_is_asked_for_this_node_and_knows_static_pods_by_their_mirrors() {
    let (asking, _, asked) = server(|path| {
        if path.starts_with("/api/v1/nodes/") {
            ok(NODE)
        } else {
            ok(LIST)
        }
    });
    let Known::Pods { pods, asked: absent } = answer(&asking).unwrap() else {
        panic!("no list")
    };
    let uids: Vec<_> = pods.iter().map(|(uid, _)| uid.as_str()).collect();
    assert_eq!(
        uids,
        [
            "7f1d2a3b-0000-4000-8000-000000000001",
            "d41d8cd98f00b204e9800998ecf8427e"
        ]
    );
    assert_eq!(absent, "not among the 1 pods of node node-1");
    let requests: Vec<String> = asked.try_iter().collect();
    assert!(
        requests[0].starts_with("GET /api/v1/nodes/node-1 "),
        "{requests:?}"
    );
    assert!(
        requests[1].starts_with("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1 "),
        "{requests:?}"
    );
}

#[test]
fn an_api_server_that_the_authority_does_not_vouch_for_gets_no_token() {
    let (mut asking, _, asked) = server(|_| ok(LIST));
    let (_, another, _) = server(|_| ok(LIST));
    asking.config.authorities = another.into_bytes();
    let said = answer(&asking).unwrap_err();
    assert!(said.contains("no TLS"), "{said}");
    assert!(asked.try_iter().all(|request| !request.contains("Bearer")));
}

#[test]
fn an_api_server_without_this_node_or_with_another_machine_of_its_name_is_silent() {
    let missing = Says {
        head: "404 Not Found",
        ..ok("nodes \"node-1\" not found")
    };
    for (node, told) in [
        (missing, "404"),
        (ok(&NODE.replace("abc", "def")), "another machine"),
        (ok("x"), "no Node"),
    ] {
        let (asking, ..) = server(move |path| {
            if path.starts_with("/api/v1/nodes/") {
                node.clone()
            } else {
                ok(LIST)
            }
        });
        let said = answer(&asking).unwrap_err();
        assert!(said.contains(told), "{said}");
    }
}
