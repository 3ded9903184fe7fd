//! What goes back: a whole answer, or events as they come; and the headers that every answer has. Not what is said.

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
pub(super) const HTML: &str = "text/html; charset=utf-8";

/// What a page of ours may do: nothing but load its own parts from here. No script stands in a page, none comes from
/// elsewhere, no text becomes markup, nobody puts the page into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// The same for what a bundle holds: no script at all, in an origin of its own; its styles stand in the page.
const SANDBOX: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; \
                       base-uri 'none'; frame-ancestors 'none'";

/// A body.
pub(super) enum Reply {
    /// All of it is there.
    Whole(Full<Bytes>),
    /// It comes as it happens, and ends when the sender is gone.
    Events(mpsc::Receiver<Bytes>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Events(events) => events.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// An answer that is all there. Nothing keeps it, and no browser takes it for something else than it is.
pub(super) fn whole(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Reply> {
    response(code, kind, Reply::Whole(Full::new(body.into())))
}

/// An answer whose events are still to come.
pub(super) fn events(events: mpsc::Receiver<Bytes>) -> Response<Reply> {
    response(StatusCode::OK, "text/event-stream", Reply::Events(events))
}

fn response(code: StatusCode, kind: &'static str, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let fixed: [(HeaderName, &str); 7] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not "no-referrer": a browser would not say then that a form comes from here.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        with(&mut response, name, value);
    }
    response
}

/// Puts what a bundle holds into its sandbox.
pub(super) fn sandboxed(mut response: Response<Reply>) -> Response<Reply> {
    with(&mut response, header::CONTENT_SECURITY_POLICY, SANDBOX);
    response
}

/// Sets a header. A value that is none (a control character in it) is left out.
pub(super) fn with(response: &mut Response<Reply>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Something as JSON.
pub(super) fn json(code: StatusCode, value: &impl Serialize) -> Response<Reply> {
    // Everything that is said here is plain: maps with text as keys, numbers, text.
    whole(code, JSON, serde_json::to_string(value).unwrap_or_default())
}

/// Why there is no answer: a code for programs, a sentence for people.
pub(super) fn problem(status: StatusCode, code: &str, message: &str) -> Response<Reply> {
    json(status, &serde_json::json!({ "error": { "code": code, "message": message } }))
}
