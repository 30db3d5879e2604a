#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

#[test]
fn a_token_is_one_word_and_is_never_shown() {
    assert_eq!(format!("{:?}", Token::parse(" abc.def\n").unwrap()), "Token");
    for bad in ["", "\n", "two words", "a\nb", "\u{7f}", "ä"] {
        assert!(Token::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_token_is_not_sent_in_the_clear_and_no_path_ends_the_line() {
    let server = Server {
        address: "127.0.0.1:10255".parse().unwrap(),
        host: "127.0.0.1:10255".into(),
        tls: None,
        token: Some(Token::parse("secret").unwrap()),
    };
    let head = request(&server, "/pods").unwrap();
    assert_eq!(
        head,
        "GET /pods HTTP/1.1\r\nhost: 127.0.0.1:10255\r\naccept: application/json\r\nconnection: close\r\n\r\n"
    );
    for path in ["/pods\r\nx: y", "/a b", "/\u{1b}"] {
        assert!(request(&server, path).is_err(), "{path}");
    }
}

#[test]
fn only_a_200_is_an_answer() {
    assert_eq!(weigh("200 OK", b"{}".to_vec()), Ok(b"{}".to_vec()));
    assert_eq!(
        weigh("401 Unauthorized", b"Unauthorized\n".to_vec()),
        Err(Failure::Denied(
            "it answers 401 Unauthorized: Unauthorized".into()
        ))
    );
    assert!(matches!(weigh("403 Forbidden", vec![]), Err(Failure::Denied(_))));
    for status in [
        "404 Not Found",
        "204 No Content",
        "301 Moved Permanently",
        "2000",
        "",
        "20",
    ] {
        assert!(
            matches!(weigh(status, b"[]".to_vec()), Err(Failure::Failed(_))),
            "{status}"
        );
    }
}

fn read(answer: &[u8]) -> Result<(String, Vec<u8>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let asked = exchange(ours, "GET / HTTP/1.1\r\n\r\n").await;
        drop(theirs);
        asked
    })
}

#[test]
fn an_answer_is_read_by_its_length_or_in_chunks() {
    let body = b"{\"items\":[]}".to_vec();
    let ok = ("200 OK".to_owned(), body);
    let by_length =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"items\":[]}";
    assert_eq!(read(by_length), Ok(ok.clone()));
    let chunked =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5\r\n{\"ite\r\n7;x=y\r\nms\":[]}\r\n0\r\n\r\n";
    assert_eq!(read(chunked), Ok(ok));
    for whole in [&by_length[..], &chunked[..chunked.len() - 4]] {
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
    }
}

#[test]
fn an_answer_that_only_ends_or_makes_no_sense_is_none() {
    for (answer, told) in [
        ("HTTP/1.1 200 OK\r\n\r\n{}", "how long"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            "two lengths",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", "no length"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}",
            "larger than",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
            "encoded as gzip",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
            "no chunks",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}xx",
            "no chunks",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n{}",
            "larger than",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP"),
        ("", "broke off"),
    ] {
        let said = read(answer.as_bytes()).unwrap_err();
        assert!(said.contains(told), "{answer}: {said}");
    }
    assert!(read(&[b'x'; 65_000]).is_err());
}
