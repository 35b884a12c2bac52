//! From the socket to `s3s`: accepts connections, logs every call, and lets the script of faults strike.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Incoming;
use hyper::header::{DATE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::service::S3Service;
use s3s::{S3Error, s3_error};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::body::{ReplyBody, RequestBody};
use super::call::{Call, CallLog};
use super::clock::{Clock, http_date};
use super::fault::{Effect, Faults};
use super::link::{Link, LinkedStream};
use super::store::WrongByte;

/// The difference of clocks above which AWS refuses a request, in seconds.
const MAXIMUM_SKEW: u64 = 15 * 60;

/// What all connections share.
pub(crate) struct Front {
    pub(crate) service: S3Service,
    pub(crate) faults: Arc<Faults>,
    pub(crate) calls: Arc<CallLog>,
    pub(crate) clock: Arc<Clock>,
    requests: AtomicU64,
}

impl Front {
    pub(crate) fn new(
        service: S3Service,
        faults: Arc<Faults>,
        calls: Arc<CallLog>,
        clock: Arc<Clock>,
    ) -> Self {
        Self { service, faults, calls, clock, requests: AtomicU64::new(0) }
    }

    /// Serves the listener until the future is dropped; its connections end with it.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _peer)) => {
                        connections.spawn(Arc::clone(&self).connection(stream));
                    }
                    Err(error) => tracing::warn!(%error, "accept a connection"),
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task panicked");
                    }
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let link = Arc::new(Link::default());
        let mut refusing = self.faults.refusing();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::warn!(%error, "set TCP_NODELAY");
        }
        let io = TokioIo::new(LinkedStream::new(stream, Arc::clone(&link)));
        let service = service_fn(|request| {
            let (front, link) = (Arc::clone(&self), Arc::clone(&link));
            async move { Ok::<_, Infallible>(front.answer(link, request).await) }
        });
        let connection = http1::Builder::new().auto_date_header(false).serve_connection(io, service);
        // The reset has to be asked for before the connection is dropped, so inside this future.
        let refused = async {
            if refusing.wait_for(|refusing| *refusing).await.is_ok() {
                link.reset();
            }
        };
        tokio::select! {
            biased;
            () = refused => {}
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            },
            () = link.ended() => {}
        }
    }

    async fn answer(&self, link: Arc<Link>, request: Request<Incoming>) -> Response<ReplyBody> {
        let call = Call::identify(&request);
        let log = self.calls.begin(call.clone());
        let effect = self.faults.strike(&call);
        let rate = if let Some(Effect::Throttle { bytes_per_second }) = effect {
            Some(bytes_per_second)
        } else {
            None
        };
        let reset_after = if let Some(Effect::ResetRequest { after }) = effect { Some(after) } else { None };
        let cut_after = if let Some(Effect::CutReply { after }) = effect { Some(after) } else { None };
        if let Some(Effect::Stall(duration)) = effect {
            tokio::time::sleep(duration).await;
        }
        let (mut parts, incoming) = request.into_parts();
        let body = RequestBody::new(incoming, Arc::clone(&link), reset_after, rate);
        if let Some(Effect::WrongByte { offset }) = effect {
            parts.extensions.insert(WrongByte { offset });
        }
        let refusal = self.refusal(effect, &call, &parts.headers);
        let mut reply = match refusal {
            Some(refusal) => error_reply(refusal),
            None => {
                let request = Request::from_parts(parts, s3s::Body::http_body_unsync(body.clone()));
                match self.service.call(request).await {
                    Ok(reply) => reply,
                    Err(error) => {
                        error_reply(S3Error::with_source(s3s::S3ErrorCode::InternalError, error.into()))
                    }
                }
            }
        };
        body.drain().await;
        if effect == Some(Effect::LoseReply) {
            link.reset();
            return std::future::pending().await;
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let headers = reply.headers_mut();
        let own = [
            (DATE.as_str(), http_date(self.clock.now())),
            ("x-amz-request-id", format!("{number:016X}")),
            ("x-amz-id-2", format!("localcloud-{number:08}")),
        ];
        for (name, value) in own {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        self.calls.finish(log, reply.status().as_u16());
        reply.map(|body| ReplyBody::new(body, link, cut_after, rate))
    }

    /// The error that the script or the clock has for this call, before S3 sees it.
    fn refusal(&self, effect: Option<Effect>, call: &Call, headers: &hyper::HeaderMap) -> Option<S3Error> {
        match effect {
            Some(Effect::InternalError) => {
                return Some(s3_error!(InternalError, "We encountered an internal error. Please try again."));
            }
            Some(Effect::SlowDown) => return Some(s3_error!(SlowDown, "Please reduce your request rate.")),
            Some(Effect::AccessDenied) => return Some(s3_error!(AccessDenied, "Access Denied")),
            Some(
                Effect::ResetRequest { .. }
                | Effect::CutReply { .. }
                | Effect::Stall(_)
                | Effect::LoseReply
                | Effect::WrongByte { .. }
                | Effect::Throttle { .. },
            )
            | None => {}
        }
        if self.faults.denies(call) {
            return Some(s3_error!(AccessDenied, "Access Denied"));
        }
        let signed_at = headers.get("x-amz-date").and_then(|value| value.to_str().ok());
        let signed_at =
            signed_at.and_then(|text| jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok());
        let signed_at = signed_at.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok())?.timestamp();
        let apart = self.clock.now().as_second().abs_diff(signed_at.as_second());
        (apart > MAXIMUM_SKEW).then(|| {
            s3_error!(
                RequestTimeTooSkewed,
                "The difference between the request time and the current time is too large."
            )
        })
    }
}

fn error_reply(error: S3Error) -> Response<s3s::Body> {
    error.to_http_response().unwrap_or_else(|_unserializable| {
        let mut reply = Response::new(s3s::Body::empty());
        *reply.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        reply
    })
}
