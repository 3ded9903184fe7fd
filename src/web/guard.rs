//! Who may see the dashboard: the name it was asked for by, the token, the session of a browser that has typed it, and
//! where a request that changes something comes from. Not `/metrics` and `/healthz`, which anybody may read.

use crate::config;
use crate::named_file::{self, FileError};
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, ORIGIN};
use sha2::Sha256;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Least letters of a token: fewer could be tried one after the other.
const LEAST: usize = 16;

/// How long a browser need not type the token again.
const SESSION: Duration = Duration::from_secs(30 * 24 * 3600);

/// The cookie's name.
const NAME: &str = "roentgen_session";

/// What whoever wants to see the dashboard must know. Does not show itself.
#[derive(Clone)]
pub struct Token(Arc<Zeroizing<Vec<u8>>>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Token {
    /// Reads the first line of the file that `web.token` names.
    pub fn read(value: &Path) -> Result<Self, FileError> {
        const KEY: &str = "web.token";
        let path = named_file::locate(KEY, value)?;
        let secret = named_file::read_secret(KEY, &path)?;
        let line = secret.reveal().split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
        if line.len() < LEAST || !line.iter().all(u8::is_ascii_graphic) {
            let problem = format!(
                "its first line must be {LEAST} letters, digits or signs or more, without spaces: `openssl rand -hex 16` makes one"
            );
            return Err(FileError::unusable(KEY, &path, problem));
        }
        Ok(Self(Arc::new(Zeroizing::new(line.to_vec()))))
    }

    /// Whether this is it, in a time that does not tell how much of it is.
    pub(super) fn is(&self, said: &[u8]) -> bool {
        let known = self.mac("comparison", &self.0).finalize().into_bytes();
        self.mac("comparison", said).verify_slice(&known).is_ok()
    }

    /// A session for a browser that has typed it. It holds until its end, or until there is another token. `is_tls` where
    /// the browser must not send it without.
    pub(super) fn session(&self, now: SystemTime, is_tls: bool) -> String {
        let end = seconds(now).saturating_add(SESSION.as_secs());
        let digits = self.mac("session", end.to_string().as_bytes()).finalize().into_bytes();
        let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
        let secure = if is_tls { "; Secure" } else { "" };
        format!("{NAME}={end}.{digits}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}", SESSION.as_secs())
    }

    /// The cookie that ends it.
    pub(super) fn no_session() -> String {
        format!("{NAME}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict")
    }

    fn is_session(&self, cookie: &str, now: SystemTime) -> bool {
        let Some((end, digits)) = cookie.split_once('.') else { return false };
        let is_over = end.parse::<u64>().map_or(true, |end| end <= seconds(now));
        let bytes: Option<Vec<u8>> = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let is_ours = self.mac("session", end.as_bytes()).verify_slice(&bytes.unwrap_or_default()).is_ok();
        is_ours && !is_over
    }

    /// Whether a request brings it, or a session.
    pub(super) fn admits(&self, headers: &HeaderMap, now: SystemTime) -> bool {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, said) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| said.trim().as_bytes().to_vec())
        });
        if let Some(said) = bearer {
            return self.is(&said);
        }
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut ours = cookies
            .flat_map(|value| value.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter(|(name, _)| *name == NAME);
        ours.any(|(_, value)| self.is_session(value, now))
    }

    fn mac(&self, purpose: &str, message: &[u8]) -> Hmac<Sha256> {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            unreachable!("HMAC takes keys of every length")
        };
        // A zero byte stands in no purpose: no two pairs give the same message.
        mac.update(b"roentgen web ");
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(message);
        mac
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The name or address in a request's `Host`, without the port.
pub(super) fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let is_port = |port: &str| port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok());
    (port.is_empty() || is_port(port)).then_some(name)
}

/// Whether the dashboard may be shown under the name that it was asked for by.
pub(super) fn is_host(headers: &HeaderMap, web: &config::Web) -> bool {
    host(headers).is_some_and(|host| web.is_host(host))
}

/// Whether a request that changes something comes from a page of ours, or from no browser. Browsers say where a POST comes
/// from, and a page from elsewhere cannot make them say otherwise.
pub(super) fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text("sec-fetch-site").is_some_and(|site| !["same-origin", "none"].contains(&site)) {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    matches!((from, host), (Some(("http" | "https", from)), Some(host)) if from.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(parse).collect()
    }

    fn token(text: &str) -> Token {
        Token(Arc::new(Zeroizing::new(text.as_bytes().to_vec())))
    }

    #[test]
    fn the_host_is_read_without_its_port() {
        for (said, name) in [
            ("box:8080", Some("box")),
            ("box", Some("box")),
            ("[::1]:8080", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("[::1", None),
            ("box:a", None),
            ("box:8080:1", None),
            ("[::1]evil", None),
        ] {
            assert_eq!(host(&headers(&[("host", said)])), name, "{said}");
        }
        assert!(!is_host(&headers(&[]), &config::Web::default()));
    }

    #[test]
    fn a_token_admits_by_itself_and_by_its_session_and_nothing_else_does() {
        let (now, token) = (UNIX_EPOCH + Duration::from_secs(1_800_000_000), token("correct-horse-battery"));
        let admits = |pairs: &[(&str, &str)]| token.admits(&headers(pairs), now);
        assert!(admits(&[("authorization", "Bearer correct-horse-battery")]));
        assert!(admits(&[("authorization", "bearer  correct-horse-battery")]));
        for wrong in
            ["Bearer correct-horse", "Bearer ", "Bearer", "Basic correct-horse-battery", "correct-horse-battery"]
        {
            assert!(!admits(&[("authorization", wrong)]), "{wrong}");
        }
        assert!(!admits(&[]));
        assert!(token.session(now, true).ends_with("; Secure"));
        let session = token.session(now, false);
        assert!(session.contains("; HttpOnly") && session.contains("; SameSite=Strict"), "{session}");
        assert!(!session.contains("correct"), "{session}");
        let cookie = session.split(';').next().unwrap();
        assert!(admits(&[("cookie", cookie)]) && admits(&[("cookie", &format!("a=b; {cookie}; c=d"))]));
        // Later, prolonged by hand, and of another token.
        let late = now + SESSION;
        assert!(!token.admits(&headers(&[("cookie", cookie)]), late));
        let (end, digits) = cookie.strip_prefix("roentgen_session=").unwrap().split_once('.').unwrap();
        let longer = end.parse::<u64>().unwrap() + 1;
        for forged in [format!("{longer}.{digits}"), format!("{end}."), format!("{end}.zz"), ".".into(), String::new()]
        {
            assert!(!admits(&[("cookie", &format!("roentgen_session={forged}"))]), "{forged}");
        }
        assert!(!super::tests::token("another-one-of-those").admits(&headers(&[("cookie", cookie)]), now));
    }

    #[test]
    fn what_changes_something_must_come_from_here() {
        let own = |pairs: &[(&str, &str)]| is_own(&headers(pairs));
        assert!(own(&[("host", "box:8080")]), "no browser");
        assert!(own(&[("host", "box:8080"), ("origin", "http://box:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(own(&[("host", "box"), ("origin", "https://box")]));
        for origin in ["http://evil.example", "null", "http://box", "http://box:8081", "file://box:8080", ""] {
            assert!(!own(&[("host", "box:8080"), ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert!(!own(&[("host", "box:8080"), ("sec-fetch-site", site)]), "{site}");
        }
    }

    #[test]
    fn a_token_is_the_first_line_of_a_file_that_others_do_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "correct-horse-battery\nsecond line\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let read = Token::read(&path).unwrap();
        assert!(read.is(b"correct-horse-battery") && !read.is(b"second line"));
        assert_eq!(format!("{read:?}"), "Token(hidden)");
        for short in ["", "hunter2\n", "spaces in it are none\n", "\n\n"] {
            fs::write(&path, short).unwrap();
            let error = Token::read(&path).unwrap_err().to_string();
            assert!(error.contains("web.token") && !error.contains("hunter2"), "{error}");
        }
    }
}
