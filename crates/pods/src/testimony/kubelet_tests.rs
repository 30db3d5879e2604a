#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

//! kubelet's list over a real connection: TLS with a certificate of its own, a token, a client certificate.

use std::net::TcpListener;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::testimony::http::Token;
use crate::testimony::listed::{on_a_thread, within};
use crate::testimony::standin::{Says, ok, serve};
use crate::testimony::tls::Identity;

const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";

fn list() -> String {
    format!(
        r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":[{{"metadata":{{"uid":"{UID}","name":"a","namespace":"b"}}}}]}}"#
    )
}

/// A kubelet that answers `/healthz` and `/pods`, with a certificate of its own. Gives its port, and what it was asked.
fn kubelet(healthz: Says, pods: Says) -> (SocketAddr, Receiver<String>) {
    let key = KeyPair::generate().unwrap();
    // For the node's name, signed by itself.
    let certificate = CertificateParams::new(vec!["node-1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    serve(&certificate.pem(), &key.serialize_pem(), move |path| match path {
        "/healthz" => healthz.clone(),
        _ => pods.clone(),
    })
}

fn asking(secure: SocketAddr, credentials: Vec<Credentials>) -> Asking {
    Asking {
        ports: Ports {
            secure: Ok(secure),
            read_only: None,
            healthz: None,
        },
        credentials,
    }
}

fn with_token() -> Credentials {
    Credentials {
        from: "/t".into(),
        identity: None,
        token: Some(Token::parse("abc.def").unwrap()),
    }
}

fn with_certificate() -> Credentials {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["x".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    Credentials {
        from: "/c".into(),
        identity: Some(
            Identity::parse(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap(),
        ),
        token: None,
    }
}

fn answer(asking: &Asking, deadline: Duration) -> Result<Known, String> {
    on_a_thread(within(deadline, ask(asking))).unwrap()
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn a_kubelet_with_a_certificate_of_its_own_is_asked_with_a_token() {
    let (address, asked) = kubelet(ok("ok"), ok(&list()));
    let Known::Pods { pods, asked: absent } = answer(&asking(address, vec![with_token()]), LONG).unwrap()
    else {
        panic!("no list")
    };
    assert_eq!(pods, [(UID.parse().unwrap(), "pod b/a".to_owned())]);
    assert_eq!(absent, "not among its 1 pods");
    let requests: Vec<String> = asked.try_iter().collect();
    assert!(
        requests[0].starts_with("GET /healthz HTTP/1.1\r\n")
            && requests[1].starts_with("GET /pods HTTP/1.1\r\n")
    );
    assert!(
        requests[1].contains("authorization: Bearer abc.def\r\n"),
        "{requests:?}"
    );
    assert!(requests[1].ends_with("certificate: false"));
}

#[test]
fn a_client_certificate_is_shown() {
    let (address, asked) = kubelet(ok("ok"), ok(&list()));
    assert!(answer(&asking(address, vec![with_certificate()]), LONG).is_ok());
    assert!(
        asked
            .try_iter()
            .all(|request| request.ends_with("certificate: true") && !request.contains("Bearer"))
    );
}

#[test]
fn a_kubelet_that_lets_nobody_ask_is_silent_and_says_who_was_tried() {
    for (head, told) in [("401 Unauthorized", "401"), ("403 Forbidden", "403")] {
        let denied = Says { head, ..ok("no") };
        let (address, asked) = kubelet(ok("ok"), denied);
        let said = answer(&asking(address, vec![with_certificate(), with_token()]), LONG).unwrap_err();
        for part in ["/c: it answers", "/t: it answers", told, "--kubelet-token-file"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(
            asked
                .try_iter()
                .filter(|request| request.starts_with("GET /pods"))
                .count(),
            2
        );
    }
}

#[test]
fn garbage_half_a_list_and_errors_are_silence() {
    let whole = list();
    for (pods, told) in [
        (ok("<html>It works!</html>"), "no PodList"),
        (ok(&whole[..whole.len() / 2]), "no PodList"),
        (ok(""), "no PodList"),
        (
            Says {
                head: "500 Internal Server Error",
                ..ok("x")
            },
            "500",
        ),
        (
            Says {
                head: "302 Found",
                ..ok("")
            },
            "302",
        ),
        (
            Says {
                head: "200 OK\r\nContent-Length: 9999",
                ..ok(&whole)
            },
            "",
        ),
    ] {
        let (address, _) = kubelet(ok("ok"), pods);
        let said = answer(&asking(address, vec![with_token()]), LONG).unwrap_err();
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn a_kubelet_that_is_not_well_is_not_asked_for_its_list() {
    for (healthz, told) in [
        (
            Says {
                head: "500 Internal Server Error",
                ..ok("[-]syncloop failed")
            },
            "syncloop failed",
        ),
        (ok("no"), "/healthz: no"),
    ] {
        let (address, asked) = kubelet(healthz, ok(&list()));
        let said = answer(&asking(address, vec![with_token()]), LONG).unwrap_err();
        assert!(said.contains(told), "{said}");
        assert!(
            asked
                .try_iter()
                .all(|request| request.starts_with("GET /healthz"))
        );
    }
}

#[test]
fn a_kubelet_that_hangs_costs_the_deadline_and_no_more() {
    let hang = Says { hang: true, ..ok("") };
    for (healthz, pods) in [(hang.clone(), ok(&list())), (ok("ok"), hang)] {
        let (address, _) = kubelet(healthz, pods);
        let start = Instant::now();
        let said = answer(&asking(address, vec![with_token()]), Duration::from_millis(500)).unwrap_err();
        assert_eq!(said, "did not answer within 500 ms");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    // One that takes connections and never says a word of TLS.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let asking = asking(mute.local_addr().unwrap(), vec![with_token()]);
    assert!(answer(&asking, Duration::from_millis(300)).is_err());
}

#[test]
fn a_token_is_not_sent_in_the_clear() {
    let (address, _) = kubelet(ok("ok"), ok(&list()));
    let server = Server {
        token: Some(Token::parse("secret").unwrap()),
        ..plain(address)
    };
    // The stand-in speaks TLS only, so it sees the request as garbage: what matters is what was put into it.
    let request = crate::testimony::http::request(&server, "/pods").unwrap();
    assert!(request.headers().get("authorization").is_none());
}

#[test]
fn ports_that_another_process_holds_are_not_asked() {
    let at = |text: &str, inode| Listener {
        at: text.parse().unwrap(),
        inode,
    };
    let all = [
        at("[::]:10250", 1),
        at("127.0.0.1:10248", 2),
        at("0.0.0.0:10255", 3),
    ];
    let ports = Ports::among(&all, &HashSet::from([2]), &Settings::default());
    assert!(ports.secure.unwrap_err().contains("another process than kubelet"));
    assert_eq!(ports.healthz.unwrap().to_string(), "127.0.0.1:10248");
    assert_eq!(ports.read_only, None);
}
