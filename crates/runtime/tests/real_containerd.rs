//! A survey of the machine's own containerd, started for the test with directories of its own.

#[cfg(test)]
mod loud;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use containerd_client::services::v1::{
        Container, CreateContainerRequest, CreateNamespaceRequest, Namespace,
    };
    use nodemend_hostfs::Host;
    use nodemend_procns::{Census, NetnsId};
    use nodemend_runtime::{
        Answer, DEFAULT_DEADLINE, Endpoint, Index, Known, RecordKind, cni_directories, survey,
    };
    use tonic::Request;

    use crate::loud::root_and;

    /// Ended when the test ends, whichever way. Its directory goes with it.
    struct Containerd {
        process: Child,
        dir: tempfile::TempDir,
    }

    impl Drop for Containerd {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    impl Containerd {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name).display().to_string();
            let config = format!(
                "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n\
                 [plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = {:?}\n",
                at("root"),
                at("state"),
                at("state/containerd.sock"),
                at("opt"),
                // containerd makes this directory: the machine's own must not be it.
                at("net.d")
            );
            std::fs::write(dir.path().join("config.toml"), config).unwrap();
            let log = std::fs::File::create(dir.path().join("log")).unwrap();
            let process = Command::new("containerd")
                .args(["--config", &at("config.toml")])
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap();
            let containerd = Self { process, dir };
            containerd.wait();
            containerd
        }

        fn socket(&self) -> PathBuf {
            self.dir.path().join("state/containerd.sock")
        }

        /// Its own word that it serves.
        fn wait(&self) {
            let end = Instant::now() + Duration::from_secs(30);
            let log = self.dir.path().join("log");
            while !std::fs::read_to_string(&log)
                .unwrap()
                .contains("containerd successfully booted")
            {
                assert!(Instant::now() < end, "{}", std::fs::read_to_string(&log).unwrap());
                std::thread::sleep(Duration::from_millis(20));
            }
        }

        async fn survey(&self, census: &Census) -> nodemend_runtime::Knowledge {
            let endpoint = Endpoint::new(self.socket().to_str().unwrap());
            survey(&Host::local(), &[endpoint], census, DEFAULT_DEADLINE).await
        }
    }

    fn in_namespace<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("containerd-namespace", "k8s.io".parse().unwrap());
        request
    }

    /// As the CRI plugin leaves a sandbox behind that it cannot load any more.
    async fn leave_a_sandbox(socket: &Path, netns: &str) {
        let client = containerd_client::Client::from_path(socket).await.unwrap();
        let namespace = Some(Namespace {
            name: "k8s.io".into(),
            ..Default::default()
        });
        // The CRI plugin makes it as well.
        let _ = client
            .namespaces()
            .create(CreateNamespaceRequest { namespace })
            .await;
        let mut container = Container {
            id: "8f3a".into(),
            labels: [("io.cri-containerd.kind".to_owned(), "sandbox".to_owned())].into(),
            runtime: Some(Default::default()),
            ..Default::default()
        };
        container.runtime.as_mut().unwrap().name = "io.containerd.runc.v2".into();
        let metadata = format!(
            r#"{{"Version":"v1","Metadata":{{"ID":"8f3a","Name":"x","Config":{{"metadata":
            {{"name":"web-1","uid":"u","namespace":"default"}}}},"NetNSPath":"{netns}"}}}}"#
        );
        let extension = container
            .extensions
            .entry("io.cri-containerd.sandbox.metadata".into())
            .or_default();
        extension.type_url = "github.com/containerd/cri/pkg/store/sandbox/Metadata".into();
        extension.value = metadata.into_bytes();
        let spec = container.spec.get_or_insert_default();
        spec.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Spec".into();
        spec.value = b"{}".to_vec();
        let request = CreateContainerRequest {
            container: Some(container),
        };
        client.containers().create(in_namespace(request)).await.unwrap();
    }

    fn unknown(answer: &Answer) -> &str {
        let (Known::Unknown(reason) | Known::Doubted(reason)) = &answer.known else {
            panic!("{answer:?}")
        };
        reason
    }

    fn version() -> String {
        let said = Command::new("containerd")
            .arg("--version")
            .output()
            .unwrap()
            .stdout;
        String::from_utf8_lossy(&said).into_owned()
    }

    #[tokio::test]
    async fn a_containerd_that_has_just_come_up_is_no_answer_until_it_lists_something() {
        if !root_and(&["containerd"]) {
            return;
        }
        let containerd = Containerd::start();
        let answers = containerd.survey(&Census::default()).await.answers;
        for answer in &answers[..3] {
            assert!(
                unknown(answer).contains("s ago and knows nothing yet"),
                "{answer:?}"
            );
        }
        // The sandbox store came with 1.7.
        let is_offered = !matches!(answers[3].known, Known::NotOffered(_));
        assert_eq!(is_offered, !version().contains(" 1.6."), "{:?}", answers[3]);

        let endpoint = Endpoint::new(containerd.socket().to_str().unwrap());
        let told = cni_directories(&Host::local(), &[endpoint], DEFAULT_DEADLINE).await;
        assert_eq!(
            told[0].configurations.as_deref(),
            Some(containerd.dir.path().join("net.d").as_path())
        );
        assert!(!told[0].plugins.is_empty(), "{told:?}");

        let netns = "/proc/self/ns/net";
        let path = containerd.dir.path().join("netns");
        std::os::unix::fs::symlink(netns, &path).unwrap();
        leave_a_sandbox(&containerd.socket(), path.to_str().unwrap()).await;
        let knowledge = containerd.survey(&Census::default()).await;
        // T06: the CRI does not know it.
        assert!(unknown(&knowledge.answers[0]).contains("knows nothing yet"));
        let Known::Records(records) = &knowledge.answers[1].known else {
            panic!("{knowledge:?}")
        };
        assert_eq!((records.len(), records[0].kind), (1, RecordKind::Sandbox));
        let id = records[0].netns.as_ref().unwrap().id.unwrap();
        assert_eq!(id.ino, rustix::fs::stat(netns).unwrap().st_ino);
        let index = Index::new(
            &knowledge,
            &Census {
                host: NetnsId::default(),
                ..Census::default()
            },
            &[],
        );
        assert_eq!(index.owner_of(id).as_deref(), Some("default/web-1"));
        assert_eq!(index.live_sandboxes(), 1);
        assert!(
            index.of_netns(id, &[])[1]
                .claim
                .detail()
                .contains("sandbox 8f3a (default/web-1)")
        );
    }
}
