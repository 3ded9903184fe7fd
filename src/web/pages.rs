//! Which path gives what, and to whom. Not the server: a request in, an answer out.

use super::guard::{self, Token};
use super::reply::{self, HTML, JSON, Reply, TEXT, json, problem, whole};
use super::{Exchange, Site, api, assets, metrics, pictures, query, upload};
use crate::gallery::Kind;
use crate::outbox::OutboxError;
use crate::status::Roots;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderMap, LOCATION, SET_COOKIE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json as value};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bytes of a form at most.
const FORM: usize = 4 << 10;

/// How long a wrong token is thought about, so that trying them out takes for ever.
const DOUBT: Duration = Duration::from_secs(1);

/// Answers a request.
pub(super) async fn answer(request: Request<Incoming>, site: &Arc<Site>, exchange: &Arc<Exchange>) -> Response<Reply> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let reads = [Method::GET, Method::HEAD].contains(&method);
    match path.as_str() {
        // For machines, which come without any token.
        "/metrics" if reads => {
            return whole(
                StatusCode::OK,
                metrics::CONTENT_TYPE,
                metrics::render(&site.status.telemetry(&Roots::default())),
            );
        }
        "/healthz" if reads => return healthz(site),
        _ => {}
    }
    let posts = matches!((&method, path.as_str()), (&Method::POST, "/login" | "/logout" | "/api/upload"));
    if !reads && !posts {
        return not_allowed();
    }
    if let Some(refused) = refused(request.headers(), site) {
        return refused;
    }
    if posts && !guard::is_own(request.headers()) {
        return problem(StatusCode::FORBIDDEN, "from_elsewhere", "this was sent by a page from elsewhere");
    }
    if let Some(name) = path.strip_prefix("/assets/") {
        return assets::file(name, request.headers()).unwrap_or_else(not_found);
    }
    let is_let_in = site.settings.token.as_ref().is_none_or(|token| token.admits(request.headers(), SystemTime::now()));
    match (path.as_str(), posts) {
        ("/login", true) => return login(request, site).await,
        ("/login", false) if !is_let_in => return assets::login(request.headers(), false),
        ("/login", false) => return redirect("/", None),
        ("/logout", true) => return redirect("/login", Some(&Token::no_session())),
        ("/", _) if !is_let_in => return redirect("/login", None),
        _ if !is_let_in => return problem(StatusCode::UNAUTHORIZED, "login_needed", "log in at /login first"),
        _ => {}
    }
    if posts {
        return upload::take(request, site, exchange).await;
    }
    let query = request.uri().query().unwrap_or_default();
    match path.as_str() {
        "/" => assets::index(request.headers(), &about(site)),
        "/api/about" => json(StatusCode::OK, &about(site)),
        "/api/health" => json(StatusCode::OK, &site.status.telemetry(&Roots::default())),
        "/api/reports" => reports(site, query).await,
        "/api/model" => model(site, |model| json(StatusCode::OK, &model.about)).await,
        "/model/card.md" => {
            model(site, |model| model.card.clone().map_or_else(not_found, |card| whole(StatusCode::OK, TEXT, card)))
                .await
        }
        "/model/report.html" => {
            let page = |report: Vec<u8>| reply::sandboxed(whole(StatusCode::OK, HTML, report));
            model(site, move |model| model.report.clone().map_or_else(not_found, page)).await
        }
        "/api/events" if method == Method::GET => match site.hub.join(exchange) {
            Some(events) => reply::events(events),
            None => problem(StatusCode::SERVICE_UNAVAILABLE, "too_many", "too many pages listen already"),
        },
        path => below(site, path).await,
    }
}

/// What has a name behind its path.
async fn below(site: &Arc<Site>, path: &str) -> Response<Reply> {
    let Some((folder, name)) = path.rsplit_once('/') else { return not_found() };
    if folder == "/api/reports" {
        return report(site, name).await;
    }
    let (site, folder, name) = (Arc::clone(site), folder.to_owned(), name.to_owned());
    let found = of_disk(move || match folder.as_str() {
        "/api/images" => pictures::file(&site, &name, Kind::Png),
        "/api/evidence" => pictures::file(&site, &name, Kind::Evidence),
        "/api/upload" => upload::state(&site, &name).map(|state| json(StatusCode::OK, &state)),
        _ => None,
    });
    match found.await {
        Ok(Some(answer)) | Err(answer) => answer,
        Ok(None) => not_found(),
    }
}

fn healthz(site: &Site) -> Response<Reply> {
    let health = site.status.health();
    let code = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // A plain struct of text, which is always JSON.
    whole(code, JSON, serde_json::to_string(&health).unwrap_or_default())
}

/// Why the dashboard is not shown to this request at all.
fn refused(headers: &HeaderMap, site: &Site) -> Option<Response<Reply>> {
    if !site.address.ip().is_loopback() && site.settings.token.is_none() {
        let text = "The dashboard is shown on other addresses than this machine's own only with a token: set token in [web].\n\
                    /metrics and /healthz answer.\n";
        return Some(whole(StatusCode::FORBIDDEN, TEXT, text));
    }
    (!guard::is_host(headers, &site.settings.web)).then(|| {
        let text =
            "The dashboard is not shown under this name: use the box's address, or add the name to hosts in [web].\n";
        whole(StatusCode::MISDIRECTED_REQUEST, TEXT, text)
    })
}

/// What the dashboard can do here.
fn about(site: &Site) -> Value {
    let setup = site.status.setup();
    value!({
        "device": setup.map(|setup| setup.device).unwrap_or_default(),
        "version": env!("CARGO_PKG_VERSION"),
        "token": site.settings.token.is_some(),
        "images": site.settings.web.images,
        "upload": site.settings.web.upload,
    })
}

async fn login(request: Request<Incoming>, site: &Site) -> Response<Reply> {
    let headers = request.headers().clone();
    let Some(token) = &site.settings.token else { return redirect("/", None) };
    let body = Limited::new(request.into_body(), FORM).collect().await;
    let form = body.ok().and_then(|body| String::from_utf8(body.to_bytes().to_vec()).ok()).unwrap_or_default();
    let said = query::pairs(&form).into_iter().find(|(name, _)| name == "token").map(|(_, said)| said);
    if said.is_some_and(|said| token.is(said.trim().as_bytes())) {
        // A proxy says so; who lies about it only locks itself out.
        let is_tls = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        return redirect("/", Some(&token.session(SystemTime::now(), is_tls)));
    }
    log::warn!("web: somebody typed a wrong token");
    tokio::time::sleep(DOUBT).await;
    assets::login(&headers, true)
}

async fn reports(site: &Arc<Site>, query: &str) -> Response<Reply> {
    let filter = match api::filter(query) {
        Ok(filter) => filter,
        Err(message) => return problem(StatusCode::BAD_REQUEST, "query", &message),
    };
    let (outbox, gallery) = (site.settings.outbox.clone(), site.gallery());
    match of_disk(move || api::reports(&outbox, gallery.as_deref(), &filter)).await {
        Ok(Ok(reports)) => json(StatusCode::OK, &reports),
        Ok(Err(error)) => unreadable(&error),
        Err(answer) => answer,
    }
}

async fn report(site: &Arc<Site>, name: &str) -> Response<Reply> {
    let (outbox, gallery, name) = (site.settings.outbox.clone(), site.gallery(), name.to_owned());
    match of_disk(move || api::report(&outbox, gallery.as_deref(), &name)).await {
        Ok(Ok(Some(report))) => json(StatusCode::OK, &report),
        Ok(Ok(None)) => not_found(),
        Ok(Err(error)) => unreadable(&error),
        Err(answer) => answer,
    }
}

async fn model(
    site: &Arc<Site>,
    show: impl FnOnce(&super::model::Model) -> Response<Reply> + Send + 'static,
) -> Response<Reply> {
    let Some(setup) = site.status.setup() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "starting", "the model is not loaded yet");
    };
    let site = Arc::clone(site);
    match of_disk(move || site.model.of(&setup).map(|model| show(&model))).await {
        Ok(Ok(answer)) | Err(answer) => answer,
        Ok(Err(error)) => {
            log::debug!("web: the bundle: {error}");
            problem(StatusCode::SERVICE_UNAVAILABLE, "unreadable", "the bundle cannot be read now; try again")
        }
    }
}

/// Reads the disk in a thread of its own.
async fn of_disk<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Result<T, Response<Reply>> {
    // A panic was printed when it happened.
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|_| problem(StatusCode::INTERNAL_SERVER_ERROR, "defect", "this is a defect of the program"))
}

/// Passing trouble of the disk, most of all. The page tries again.
fn unreadable(error: &OutboxError) -> Response<Reply> {
    log::debug!("web: {error}");
    problem(StatusCode::SERVICE_UNAVAILABLE, "unreadable", "the box's history cannot be read now; try again")
}

fn not_found() -> Response<Reply> {
    problem(StatusCode::NOT_FOUND, "not_found", "there is nothing here; the dashboard is at /")
}

fn not_allowed() -> Response<Reply> {
    let mut refused = whole(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
    reply::with(&mut refused, ALLOW, "GET, HEAD");
    refused
}

fn redirect(to: &str, cookie: Option<&str>) -> Response<Reply> {
    let mut response = whole(StatusCode::SEE_OTHER, TEXT, "");
    reply::with(&mut response, LOCATION, to);
    if let Some(cookie) = cookie {
        reply::with(&mut response, SET_COOKIE, cookie);
    }
    response
}
