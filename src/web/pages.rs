//! Which path gives what. Not the server: a request in, an answer out.

use super::metrics;
use crate::status::{Roots, Status};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

/// What stands at `/`.
const INDEX: &str = "Roentgen: chest-radiograph screening. It screens; it does not diagnose.\n\n\
                     /metrics  how the box is, for Prometheus\n\
                     /healthz  200 where all is well, else 503 and what is wrong\n";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Answers a request; its body is never read.
pub(super) fn answer<Body>(request: &Request<Body>, status: &Status, roots: &Roots) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".into());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/" => page(StatusCode::OK, TEXT, INDEX.into()),
        "/metrics" => page(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(&status.telemetry(roots))),
        "/healthz" => {
            let health = status.health();
            let code = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            // A plain struct of text, which is always JSON.
            page(code, JSON, serde_json::to_string(&health).unwrap_or_default())
        }
        _ => page(StatusCode::NOT_FOUND, TEXT, "there is /metrics and /healthz\n".into()),
    }
}

fn page(code: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
