//! Bringing images into a containerd from blobs that are on the disk already.
//!
//! The order keeps garbage collection away: a lease holds the blobs until the records of the images do. A blob that lies
//! in the content store under its digest, and that no record names, is taken over as it is: the writer offers its whole
//! size at once (`Writer` of core/metadata/content.go, with the content sharing policy `shared`, the default). Otherwise
//! its bytes are sent.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use containerd_client::Client;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, Image, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use containerd_client::types::Descriptor;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use k8s_cri::v1;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use nodemend_hostfs::Host;
use tokio::runtime::Runtime;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use crate::containerd::in_namespace;
use crate::cri::older;
use crate::line::{Silence, connect, failed};

/// The namespace of CRI.
const NAMESPACE: &str = "k8s.io";
/// Names the lease of a call (core/leases/grpc.go).
const LEASE_HEADER: &str = "containerd-lease";
/// How long a lease lasts whose owner died.
const LEASE: Duration = Duration::from_secs(24 * 3600);
/// The time between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How much is sent at once, in bytes. containerd takes messages of up to 16 MiB.
const CHUNK: u64 = 1 << 20;

/// A blob that is to be in the content store.
#[derive(Debug)]
pub struct BlobToBring<'b> {
    /// `sha256:…`, which the caller has verified.
    pub digest: &'b str,
    /// Bytes.
    pub size: u64,
    /// Where the bytes are.
    pub file: &'b File,
    /// The blobs that it leads to: garbage collection keeps them with it.
    pub children: &'b [String],
}

/// A record of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageToBring {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// The digest of its target.
    pub digest: String,
    /// The media type of its target.
    pub media_type: String,
    /// The size of its target in bytes.
    pub size: u64,
}

/// How a blob came into the content store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It lay there, and has a record now.
    TakenOver,
    /// Its bytes were sent.
    Sent,
    /// It had a record already.
    Known,
}

/// A containerd that images are brought into, and the lease that holds them meanwhile.
pub struct ImageStore<'r> {
    runtime: &'r Runtime,
    client: Client,
    lease: String,
    /// How long each answer may take.
    deadline: Duration,
}

impl<'r> ImageStore<'r> {
    /// Connects, and takes a lease of this name; one that is there already, from a run that was killed, is taken up.
    pub(crate) fn open(
        runtime: &'r Runtime,
        host: &Host,
        socket: &Path,
        lease: &str,
        deadline: Duration,
    ) -> Result<Self, String> {
        let line = runtime.block_on(async { timely(deadline, connect(host, socket)).await });
        let store = Self {
            runtime,
            client: Client::from(line?.map_err(|refusal| refusal.reason)?.channel),
            lease: lease.to_owned(),
            deadline,
        };
        let expires = humantime::format_rfc3339_seconds(SystemTime::now() + LEASE).to_string();
        let request = CreateRequest {
            id: lease.to_owned(),
            labels: [("containerd.io/gc.expire".to_owned(), expires)].into(),
        };
        let request = within(request)?;
        let taken = store.wait(async { store.client.leases().create(request).await })?;
        new_or_known("Leases.Create", taken.map(drop))?;
        Ok(store)
    }

    /// Brings a blob into the content store.
    ///
    /// # Errors
    /// In words. Nothing of it counts then, and it may be tried again.
    pub fn blob(&self, blob: &BlobToBring<'_>) -> Result<Brought, String> {
        self.runtime.block_on(self.bring(blob))
    }

    /// Makes the record of an image. One of the same name that is there already is left as it is.
    ///
    /// # Errors
    /// In words.
    pub fn image(&self, image: ImageToBring) -> Result<(), String> {
        let target = Descriptor {
            media_type: image.media_type,
            digest: image.digest,
            size: signed(image.size)?,
            ..Descriptor::default()
        };
        let request = within(CreateImageRequest {
            image: Some(Image {
                name: image.name,
                labels: image.labels,
                target: Some(target),
                ..Image::default()
            }),
            ..CreateImageRequest::default()
        })?;
        let made = self.wait(async { self.client.images().create(request).await })?;
        new_or_known("Images.Create", made.map(drop))
    }

    /// Waits until CRI has heard of images, by their names: it does so by events, a moment after their records are made.
    ///
    /// # Errors
    /// In words, with the first that it does not know within the time.
    pub fn await_in_cri(&self, names: &[String], patience: Duration) -> Result<(), String> {
        let heard = async {
            for name in names {
                while !self.is_in_cri(name).await? {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ok(())
        };
        let call = async { timely(patience, heard).await };
        let said = self.runtime.block_on(call);
        said.unwrap_or_else(|late| Err(format!("CRI {late} with all images")))
    }

    async fn is_in_cri(&self, name: &str) -> Result<bool, String> {
        let question = || v1::ImageStatusRequest {
            image: Some(v1::ImageSpec {
                image: name.to_owned(),
                ..v1::ImageSpec::default()
            }),
            verbose: false,
        };
        let channel = self.client.channel();
        let said = ImageServiceClient::new(channel.clone())
            .image_status(question())
            .await;
        let said = match said {
            Err(status) if status.code() == Code::Unimplemented => {
                ImageServiceClient::new(older(channel))
                    .image_status(question())
                    .await
            }
            other => other,
        };
        let said = said.map_err(|status| failed("ImageStatus", &status))?;
        Ok(said.into_inner().image.is_some())
    }

    /// Gives the lease back. What has no record of an image is garbage then.
    ///
    /// # Errors
    /// In words. It ends by itself after a day.
    pub fn close(self) -> Result<(), String> {
        let request = within(DeleteRequest {
            id: self.lease.clone(),
            sync: false,
        })?;
        let gone = self.wait(async { self.client.leases().delete(request).await })?;
        gone.map(drop).map_err(|status| failed("Leases.Delete", &status))
    }

    fn wait<T>(&self, call: impl Future<Output = T>) -> Result<T, String> {
        self.runtime.block_on(async { timely(self.deadline, call).await })
    }

    /// Opens a writer, and commits at once if it offers all of the blob; sends the bytes otherwise.
    async fn bring(&self, blob: &BlobToBring<'_>) -> Result<Brought, String> {
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: format!("nodemend-{}", blob.digest),
            total: signed(blob.size)?,
            expected: blob.digest.to_owned(),
            ..WriteContentRequest::default()
        };
        let mut writer = match self.writer(first).await? {
            Ok(writer) => writer,
            Err(status) => return known(&status),
        };
        let mut offset = match writer.answer(self.deadline).await? {
            Ok(answer) => unsigned(answer.offset)?,
            Err(status) => return known(&status),
        };
        let how = match offset == blob.size {
            true => Brought::TakenOver,
            false => Brought::Sent,
        };
        if how == Brought::Sent {
            // What an earlier try left of it may be anything: a write at 0 takes the writer back to its beginning.
            offset = 0;
        }
        while offset < blob.size {
            let data = chunk(blob, offset)?;
            let message = WriteContentRequest {
                action: WriteAction::Write.into(),
                offset: signed(offset)?,
                data,
                ..WriteContentRequest::default()
            };
            offset = match writer.ask(message, self.deadline).await? {
                Ok(answer) => unsigned(answer.offset)?,
                Err(status) => return known(&status),
            };
        }
        let commit = WriteContentRequest {
            action: WriteAction::Commit.into(),
            total: signed(blob.size)?,
            expected: blob.digest.to_owned(),
            // At 0 the server would take the writer back to its beginning.
            offset: signed(offset)?,
            labels: references(blob.children),
            ..WriteContentRequest::default()
        };
        match writer.ask(commit, self.deadline).await? {
            Ok(_) => Ok(how),
            Err(status) => known(&status),
        }
    }

    async fn writer(&self, first: WriteContentRequest) -> Result<Result<Writer, Status>, String> {
        let (tell, requests) = unbounded();
        let sent = tell.unbounded_send(first);
        sent.map_err(|error| error.to_string())?;
        let mut request = within(requests)?;
        let lease = MetadataValue::try_from(&self.lease).map_err(|error| error.to_string())?;
        request.metadata_mut().insert(LEASE_HEADER, lease);
        let mut content = self.client.content();
        let answers = timely(self.deadline, content.write(request)).await?;
        Ok(answers.map(|answers| Writer {
            tell,
            answers: answers.into_inner(),
        }))
    }
}

/// A call of `Content.Write`: each message has one answer.
struct Writer {
    tell: UnboundedSender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
}

impl Writer {
    async fn ask(
        &mut self,
        message: WriteContentRequest,
        deadline: Duration,
    ) -> Result<Result<WriteContentResponse, Status>, String> {
        // Where nobody listens any more, the answer says why.
        let _ = self.tell.unbounded_send(message);
        self.answer(deadline).await
    }

    async fn answer(&mut self, deadline: Duration) -> Result<Result<WriteContentResponse, Status>, String> {
        match timely(deadline, self.answers.message()).await? {
            Ok(Some(answer)) => Ok(Ok(answer)),
            Ok(None) => Err("Content.Write ended without an answer".to_owned()),
            Err(status) => Ok(Err(status)),
        }
    }
}

async fn timely<T>(deadline: Duration, call: impl Future<Output = T>) -> Result<T, String> {
    let answer = tokio::time::timeout(deadline, call).await;
    answer.map_err(|_| format!("did not answer within {} s", deadline.as_secs()))
}

fn within<T>(message: T) -> Result<Request<T>, String> {
    in_namespace(message, NAMESPACE).map_err(|silence| match silence {
        Silence::Unknown(reason) | Silence::Doubted(reason) | Silence::NotOffered(reason) => reason,
    })
}

fn known(status: &Status) -> Result<Brought, String> {
    if status.code() == Code::AlreadyExists {
        return Ok(Brought::Known);
    }
    Err(failed("Content.Write", status))
}

fn new_or_known(call: &str, made: Result<(), Status>) -> Result<(), String> {
    match made {
        Err(status) if status.code() != Code::AlreadyExists => Err(failed(call, &status)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The next bytes of a blob.
fn chunk(blob: &BlobToBring<'_>, offset: u64) -> Result<Vec<u8>, String> {
    let length = usize::try_from((blob.size - offset).min(CHUNK)).map_err(|error| error.to_string())?;
    let mut data = vec![0; length];
    let read = blob.file.read_exact_at(&mut data, offset);
    read.map_err(|error| format!("{}: {error}", blob.digest))?;
    Ok(data)
}

/// Labels by which garbage collection finds the children (`containerd.io/gc.ref.content.*`, core/metadata/gc.go).
fn references(children: &[String]) -> HashMap<String, String> {
    let labels = children.iter().enumerate();
    labels
        .map(|(nth, child)| (format!("containerd.io/gc.ref.content.{nth}"), child.clone()))
        .collect()
}

fn signed(size: u64) -> Result<i64, String> {
    i64::try_from(size).map_err(|error| error.to_string())
}

fn unsigned(size: i64) -> Result<u64, String> {
    u64::try_from(size).map_err(|error| error.to_string())
}
