//! A survey of runtimes that answer, and of runtimes that do not.

#[cfg(test)]
mod fake;
#[cfg(test)]
mod loud;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use k8s_cri::v1;
    use nodemend_hostfs::Host;
    use nodemend_procns::Census;
    use nodemend_runtime::{
        Answer, DEFAULT_DEADLINE, Discovery, Endpoint, Index, Known, Record, RecordKind, blocking,
        cni_directories, discover, survey,
    };
    use tokio::net::UnixListener;

    use crate::fake::{Fake, Versions, place};
    use crate::loud::root_and;

    const SHORT: Duration = Duration::from_millis(200);

    fn endpoint(socket: &Path) -> Vec<Endpoint> {
        vec![Endpoint::new(socket.to_str().unwrap())]
    }

    async fn ask(socket: &Path, deadline: Duration) -> Vec<Answer> {
        survey(&Host::local(), &endpoint(socket), &Census::default(), deadline)
            .await
            .answers
    }

    fn records(answer: &Answer) -> &[Record] {
        let Known::Records(records) = &answer.known else {
            panic!("{answer:?}")
        };
        records
    }

    fn unknown(answer: &Answer) -> &str {
        let (Known::Unknown(reason) | Known::Doubted(reason)) = &answer.known else {
            panic!("{answer:?}")
        };
        reason
    }

    /// A pod with a container, as kubelet would make it.
    fn a_pod() -> Fake {
        let metadata = v1::PodSandboxMetadata {
            name: "web-1".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt: 0,
        };
        let sandbox = v1::PodSandbox {
            id: "8f3a".into(),
            metadata: Some(metadata),
            state: v1::PodSandboxState::SandboxNotready.into(),
            ..Default::default()
        };
        let labels = [("name", "web-1"), ("namespace", "default"), ("uid", "u")];
        let labels = labels.map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.to_owned()));
        let container = v1::Container {
            id: "c1".into(),
            pod_sandbox_id: "8f3a".into(),
            state: v1::ContainerState::ContainerExited.into(),
            labels: labels.into(),
            ..Default::default()
        };
        Fake {
            sandboxes: vec![sandbox],
            containers: vec![container],
            ..Fake::default()
        }
    }

    fn is_the_pod(answer: &Answer) {
        let [sandbox, container] = records(answer) else {
            panic!("{answer:?}")
        };
        assert_eq!((sandbox.kind, sandbox.id.as_str()), (RecordKind::Sandbox, "8f3a"));
        assert_eq!(sandbox.state.as_deref(), Some("SANDBOX_NOTREADY"));
        assert_eq!(
            (container.kind, container.id.as_str()),
            (RecordKind::Container, "c1")
        );
        assert_eq!(container.sandbox_id.as_deref(), Some("8f3a"));
        assert_eq!(container.pod, sandbox.pod);
        assert_eq!(sandbox.pod.as_ref().unwrap().name, "web-1");
    }

    #[tokio::test]
    async fn a_runtime_that_answers_is_listed_in_any_state_and_without_side_effects() {
        let (_dir, socket) = place();
        let fake = a_pod();
        fake.serve(&socket, Versions::V1);
        let answers = ask(&socket, DEFAULT_DEADLINE).await;
        assert_eq!(answers[0].source.name(), format!("cri {}", socket.display()));
        is_the_pod(&answers[0]);
        // T47: nothing else was called.
        assert_eq!(
            *fake.calls.lock().unwrap(),
            ["list_pod_sandbox", "list_containers", "status"]
        );
        // It is no containerd, and that is no fault.
        for (answer, what) in answers[1..4].iter().zip(["containers", "tasks", "sandboxes"]) {
            assert_eq!(
                answer.source.name(),
                format!("containerd {} {what}", socket.display())
            );
            assert!(matches!(answer.known, Known::NotOffered(_)), "{answer:?}");
        }
        let rest: Vec<_> = answers[4..].iter().map(|answer| answer.source.name()).collect();
        assert_eq!(
            rest,
            ["shim processes", "shim bundles", "container ids in cgroups"]
        );
        assert_eq!(
            Index::new(&nodemend_runtime::Knowledge { answers }, &Census::default(), &[])
                .required()
                .len(),
            4
        );
    }

    #[tokio::test]
    async fn an_old_runtime_is_asked_in_its_own_version() {
        let (_dir, socket) = place();
        let fake = a_pod();
        fake.serve(&socket, Versions::V1Alpha2);
        is_the_pod(&ask(&socket, DEFAULT_DEADLINE).await[0]);
        assert_eq!(
            *fake.calls.lock().unwrap(),
            ["list_pod_sandbox", "list_containers", "status"]
        );
    }

    #[tokio::test]
    async fn t03_an_empty_list_of_a_runtime_that_has_just_come_up_is_no_answer() {
        let (_dir, socket) = place();
        // Containers without sandboxes are as empty.
        Fake {
            sandboxes: vec![],
            ..a_pod()
        }
        .serve(&socket, Versions::V1);
        let answers = ask(&socket, DEFAULT_DEADLINE).await;
        assert!(
            unknown(&answers[0]).contains("s ago and knows nothing yet"),
            "{answers:?}"
        );
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_ready_is_no_answer() {
        let (_dir, socket) = place();
        let condition = |kind: &str| v1::RuntimeCondition {
            r#type: kind.into(),
            reason: "DockerDown".into(),
            ..Default::default()
        };
        let network = vec![condition("NetworkReady")];
        Fake {
            conditions: network,
            ..a_pod()
        }
        .serve(&socket, Versions::V1);
        is_the_pod(&ask(&socket, DEFAULT_DEADLINE).await[0]);
        let (_dir, socket) = place();
        Fake {
            conditions: vec![condition("RuntimeReady")],
            ..a_pod()
        }
        .serve(&socket, Versions::V1);
        assert!(unknown(&ask(&socket, DEFAULT_DEADLINE).await[0]).contains("not ready: DockerDown"));
    }

    #[tokio::test]
    async fn a_runtime_that_hangs_is_no_answer_after_the_deadline() {
        let (_dir, socket) = place();
        let _listener = UnixListener::bind(&socket).unwrap();
        let began = Instant::now();
        let answers = ask(&socket, SHORT).await;
        assert!(began.elapsed() < 5 * SHORT, "all are asked at once");
        for answer in &answers[..4] {
            assert_eq!(unknown(answer), "did not answer within 200 ms");
        }
        assert!(
            matches!(answers[4].known, Known::Records(_)),
            "the others answer all the same"
        );
    }

    #[tokio::test]
    async fn what_speaks_another_language_is_no_answer() {
        let (_dir, socket) = place();
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.writable().await;
                let _ = stream.try_write(b"HTTP/1.0 400 Bad Request\r\n\r\nno such thing here\r\n");
            }
        });
        for answer in &ask(&socket, DEFAULT_DEADLINE).await[..4] {
            assert!(
                unknown(answer).contains("failed") || unknown(answer).contains("cannot connect"),
                "{answer:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_runtime_that_is_down_is_no_answer() {
        let (_dir, socket) = place();
        for answer in &ask(&socket, SHORT).await[..4] {
            assert!(
                unknown(answer).starts_with("there is no such socket; start the runtime"),
                "{answer:?}"
            );
        }
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        for answer in &ask(&socket, SHORT).await[..4] {
            assert!(
                unknown(answer).starts_with("nobody listens on the socket; start the runtime"),
                "{answer:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_no_answer() {
        let flags = vec!["tcp://127.0.0.1:3735".to_owned()];
        let endpoints = discover(
            &Host::local(),
            &Discovery {
                flags,
                environment: None,
            },
        );
        let answers = survey(&Host::local(), &endpoints, &Census::default(), SHORT)
            .await
            .answers;
        assert_eq!(answers[0].source.name(), "cri tcp://127.0.0.1:3735");
        assert!(unknown(&answers[0]).contains("not the path of a socket"));
        assert_eq!(answers.len(), 4);
    }

    #[tokio::test]
    async fn a_node_without_runtimes_proves_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(discover(&Host::at(root.path()), &Discovery::default()), []);
        let answers = survey(&Host::local(), &[], &Census::default(), SHORT)
            .await
            .answers;
        assert_eq!(answers[0].source.name(), "cri");
        let reason = unknown(&answers[0]);
        assert!(
            reason.starts_with("no runtime socket was found; looked at /run/containerd/containerd.sock, ")
        );
        assert!(reason.ends_with("; give --runtime-endpoint"));
    }

    #[tokio::test]
    async fn the_runtime_of_another_host_s_files_is_not_asked() {
        let (dir, socket) = place();
        a_pod().serve(&socket, Versions::V1);
        let host = Host::at(dir.path());
        let answers = survey(&host, &endpoint(&socket), &Census::default(), SHORT)
            .await
            .answers;
        assert!(unknown(&answers[0]).contains("another host"));
    }

    #[tokio::test]
    async fn a_caller_inside_a_runtime_may_block() {
        let (_dir, socket) = place();
        let _listener = UnixListener::bind(&socket).unwrap();
        let known = blocking::survey(&Host::local(), &endpoint(&socket), &Census::default(), SHORT);
        assert_eq!(unknown(&known.answers[0]), "did not answer within 200 ms");
    }

    #[tokio::test]
    async fn the_cni_directories_are_told_by_runtimes_of_either_version() {
        for versions in [Versions::V1, Versions::V1Alpha2] {
            let (_dir, socket) = place();
            let cni = r#"{"PluginDirs":["/opt/cni/bin"],"PluginConfDir":"/etc/cni/net.d"}"#;
            let info = [("cniconfig".to_owned(), cni.to_owned())].into();
            let fake = Fake { info, ..a_pod() };
            fake.serve(&socket, versions);
            let (hung_dir, hung) = place();
            let _listener = UnixListener::bind(&hung).unwrap();
            let endpoints = [endpoint(&socket), endpoint(&hung), endpoint(hung_dir.path())].concat();
            let told = cni_directories(&Host::local(), &endpoints, SHORT).await;
            assert_eq!(told.len(), 1, "{told:?}");
            assert_eq!(told[0].endpoint, format!("unix://{}", socket.display()));
            assert_eq!(told[0].plugins, [Path::new("/opt/cni/bin")]);
            assert_eq!(*fake.calls.lock().unwrap(), ["status"]);
        }
    }

    #[test]
    fn a_survey_may_move_between_threads() {
        fn movable(_: &impl Send) {}
        let (host, census) = (Host::local(), Census::default());
        movable(&survey(&host, &[], &census, SHORT));
        movable(&cni_directories(&host, &[], SHORT));
    }

    /// T34: in a container with a pid namespace of its own, the host's runtime has no pid that could be looked up.
    #[tokio::test]
    async fn a_runtime_outside_of_this_pid_namespace_is_no_answer() {
        if !root_and(&["unshare"]) {
            return;
        }
        let (_dir, socket) = place();
        a_pod().serve(&socket, Versions::V1);
        let mut inside = tokio::task::spawn_blocking(move || {
            std::process::Command::new("unshare")
                .args(["--pid", "--fork", "--mount-proc"])
                .arg(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "tests::inside_a_pid_namespace",
                    "--ignored",
                    "--nocapture",
                ])
                .env("SOCKET_OF_THE_TEST", &socket)
                .output()
        });
        let output = (&mut inside).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[tokio::test]
    #[ignore = "run by the test above, in a pid namespace of its own"]
    async fn inside_a_pid_namespace() {
        let Ok(socket) = std::env::var("SOCKET_OF_THE_TEST") else {
            return;
        };
        for answer in &ask(Path::new(&socket), DEFAULT_DEADLINE).await[..4] {
            assert!(unknown(answer).contains("enter the host first"), "{answer:?}");
        }
    }
}
