//! gRPC by hand: one path, one function. The generated servers would want thirty functions of which seven are used, and containerd's own API
//! comes without any.

use std::convert::Infallible;
use std::pin::Pin;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use prost::Message;
use tokio::net::UnixListener;
use tonic::Status;
use tonic::body::Body;
use tonic_prost::ProstCodec;

/// One answer on its way.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Answers with a function that may block: a slow plugin must not keep the list from being read.
pub(crate) fn unary<Q, A>(
    request: Request<Incoming>,
    function: impl FnOnce(Q) -> Result<A, Status> + Send + 'static,
) -> Answering
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let mut once = Some(function);
    let method = tower::service_fn(move |question: tonic::Request<Q>| {
        let function = once.take();
        async move {
            let function = function.ok_or_else(|| Status::internal("called twice"))?;
            let answer = tokio::task::spawn_blocking(move || function(question.into_inner())).await;
            answer
                .map_err(|error| Status::internal(error.to_string()))?
                .map(tonic::Response::new)
        }
    });
    Box::pin(async move {
        tonic::server::Grpc::new(ProstCodec::<A, Q>::default())
            .unary(method, request)
            .await
    })
}

/// The answer to every call that the stand-in does not know.
pub(crate) fn unimplemented(path: &str) -> Answering {
    let status = Status::unimplemented(format!("the stand-in has no {path}"));
    Box::pin(async move { status.into_http() })
}

/// Serves connections for ever.
pub(crate) async fn serve<F>(listener: UnixListener, answer: F) -> std::io::Result<()>
where
    F: Fn(Request<hyper::body::Incoming>) -> Answering + Clone + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        let answer = answer.clone();
        let service = tower::service_fn(move |request| {
            let answering = answer(request);
            async move { Ok::<_, Infallible>(answering.await) }
        });
        tokio::spawn(async move {
            // A client that leaves in the middle is its own affair.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                .await;
        });
    }
}
