//! Where the browser brings the code: a web server on the loopback interface, for two requests.
//!
//! RFC 8252, section 7.3. Everybody on this machine can connect, and a page of anybody's can make the browser
//! do so. So nothing but the state counts: a request without it changes nothing, and however many connections
//! there are, the newest find room.
//!
//! The other request begins the sign-in. A browser is opened with an address on its command line, which every
//! user of the machine can read; the portal's page with the state in it must not be there. So the browser gets
//! an address of ours that leads to that page once: whoever comes second finds nothing.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_control_client::sign_in::{CodeGrant, ExchangeError, harmless};
use adit_protocol::sign_in::SignInError;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION, REFERRER_POLICY,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// Where the browser comes back to.
const PATH: &str = "/callback";

/// Where the browser begins.
const START_PATH: &str = "/start";

/// Connections at once; one more ends the oldest.
const MOST_CONNECTIONS: usize = 64;

/// How long a browser may take for its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How long the page may wait for the portal's word.
const PAGE_LIMIT: Duration = Duration::from_secs(90);

/// The largest request.
const LARGEST_REQUEST: usize = 16 * 1024;

/// The longest code that is taken.
const LONGEST_CODE: usize = 4096;

/// What the browser shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    SignedIn,
    Failed,
    NotFound,
    /// This page of the portal.
    Elsewhere(String),
}

/// Leads to the portal's page, once.
#[derive(Debug)]
pub(super) struct Start {
    key: String,
    page: Mutex<Option<String>>,
}

impl Start {
    /// `key` is nobody else's; `page` is where it leads.
    pub(super) fn new(key: String, page: String) -> Self {
        Self { key, page: Mutex::new(Some(page)) }
    }

    fn open(&self, query: &str) -> Option<Page> {
        let given = query.strip_prefix("key=")?;
        verify_slices_are_equal(self.key.as_bytes(), given.as_bytes()).ok()?;
        self.page.lock().unwrap_or_else(PoisonError::into_inner).take().map(Page::Elsewhere)
    }
}

/// What a request is held against.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) grant: CodeGrant,
    pub(super) start: Start,
}

/// The browser came back.
#[derive(Debug)]
pub(super) struct Callback {
    /// The code, or why there is none.
    pub(super) outcome: Result<String, ExchangeError>,
    /// Takes what the browser is to show.
    pub(super) answer: oneshot::Sender<Page>,
}

/// Listens on the loopback interface, at a port of the system's choice.
#[derive(Debug)]
pub(super) struct Loopback {
    listener: TcpListener,
    redirect_uri: String,
}

impl Loopback {
    pub(super) async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let redirect_uri = format!("http://{}{PATH}", listener.local_addr()?);
        Ok(Self { listener, redirect_uri })
    }

    pub(super) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Where a browser begins that is opened on this machine.
    pub(super) fn start_uri(&self, start: &Start) -> String {
        let origin = self.redirect_uri.strip_suffix(PATH).unwrap_or_default();
        format!("{origin}{START_PATH}?key={}", start.key)
    }

    /// Serves until a request with the right state comes. The page behind it waits for its answer, and is
    /// delivered although nobody listens any more.
    pub(super) async fn callback(&self, secrets: &Arc<Secrets>) -> Callback {
        let (found, mut callbacks) = mpsc::channel(1);
        let mut connections: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                biased;
                Some(callback) = callbacks.recv() => return callback,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        if connections.len() == MOST_CONNECTIONS
                            && let Some(oldest) = connections.pop_front()
                        {
                            oldest.abort();
                        }
                        let serving = serve(stream, Arc::clone(secrets), found.clone());
                        connections.push_back(tokio::spawn(serving).abort_handle());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a browser");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }
}

async fn serve(stream: TcpStream, secrets: Arc<Secrets>, found: mpsc::Sender<Callback>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (secrets, found) = (Arc::clone(&secrets), found.clone());
        async move { Ok::<_, Infallible>(response(&respond(&request, &secrets, &found).await)) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_LIMIT)
        .max_buf_size(LARGEST_REQUEST)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(PAGE_LIMIT + REQUEST_LIMIT, connection).await {
        tracing::debug!(%error, "a browser's connection failed");
    }
}

async fn respond(request: &Request<Incoming>, secrets: &Secrets, found: &mpsc::Sender<Callback>) -> Page {
    let query = request.uri().query().filter(|_| request.method() == Method::GET).unwrap_or_default();
    let outcome = match request.uri().path() {
        START_PATH => return secrets.start.open(query).unwrap_or(Page::NotFound),
        PATH => read(query, &secrets.grant),
        _ => None,
    };
    let Some(outcome) = outcome else { return Page::NotFound };
    let (answer, page) = oneshot::channel();
    if found.try_send(Callback { outcome, answer }).is_err() {
        return Page::NotFound;
    }
    match tokio::time::timeout(PAGE_LIMIT, page).await {
        Ok(Ok(page)) => page,
        _ => Page::Failed,
    }
}

/// What a query with the right state says (RFC 6749, sections 4.1.2 and 4.1.2.1).
fn read(query: &str, grant: &CodeGrant) -> Option<Result<String, ExchangeError>> {
    let mut fields = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        // Section 3.1: "parameters MUST NOT be included more than once".
        if fields.insert(name, value).is_some() {
            return None;
        }
    }
    if !grant.is_state(fields.get("state")?) {
        return None;
    }
    if let Some(code) = fields.get("code") {
        let is_code = (1..=LONGEST_CODE).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_graphic());
        let malformed = || ExchangeError::Malformed("a code that is none".to_owned());
        return Some(if is_code { Ok(code.to_string()) } else { Err(malformed()) });
    }
    let error = fields.get("error")?;
    let error = serde_json::from_value(serde_json::Value::String(error.to_string()));
    let error = error.unwrap_or(SignInError::InvalidRequest);
    let description = fields.get("error_description").and_then(|text| harmless(text));
    Some(Err(ExchangeError::Refused { error, description }))
}

fn response(page: &Page) -> Response<Full<Bytes>> {
    let (status, title, sentence) = match page {
        Page::SignedIn => (StatusCode::OK, "You are signed in", "You may close this window."),
        Page::Failed => (StatusCode::OK, "Not signed in", "The program that asked says why."),
        Page::NotFound => (
            StatusCode::NOT_FOUND,
            "Not found",
            "This address works once, or not any more. Open the one that the program printed.",
        ),
        Page::Elsewhere(_) => (StatusCode::SEE_OTHER, "Sign in", "Your browser does not go on by itself."),
    };
    let location = match page {
        Page::Elsewhere(url) => HeaderValue::from_str(url).ok(),
        _ => None,
    };
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Adit: {title}</title>\
         <h1>{title}.</h1><p>{sentence}</p></html>\n"
    );
    let mut response = Response::new(Full::new(Bytes::from(page)));
    *response.status_mut() = status;
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        // The address holds the code.
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Some(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn grant() -> CodeGrant {
        CodeGrant::new(&[3; 64])
    }

    async fn ask(address: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A flood may have ended it.
        let _ = tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    async fn get(address: &str, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
    }

    /// A listener that waits, its address, and what comes of it.
    async fn waiting() -> (String, tokio::task::JoinHandle<Callback>) {
        let loopback = Loopback::bind().await.unwrap();
        let address = loopback.redirect_uri()["http://".len()..].replace(PATH, "");
        assert!(address.starts_with("127.0.0.1:"));
        let start = Start::new("the-key".to_owned(), "https://portal.example/?state=x".to_owned());
        assert_eq!(loopback.start_uri(&start), format!("http://{address}/start?key=the-key"));
        let secrets = Arc::new(Secrets { grant: grant(), start });
        let waiting = tokio::spawn(async move { loopback.callback(&secrets).await });
        (address, waiting)
    }

    #[tokio::test]
    async fn only_the_state_ends_the_wait() {
        let (address, waiting) = waiting().await;
        let state = grant().state().to_owned();
        for (request, expected) in [
            (format!("/callback?code=x&state={}", &state[1..]), "404"),
            ("/callback?code=x".to_owned(), "404"),
            ("/callback?code=x&state=".to_owned(), "404"),
            (format!("/callback?code=x&state={state}&state={state}"), "404"),
            (format!("/callback?state={state}"), "404"),
            (format!("/other?code=x&state={state}"), "404"),
            ("/".to_owned(), "404"),
            ("/favicon.ico".to_owned(), "404"),
        ] {
            let answer = get(&address, &request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{request}: {answer}");
        }
        let post =
            format!("POST /callback?code=x&state={state} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert!(ask(&address, &post).await.starts_with("HTTP/1.1 404"));
        assert!(!waiting.is_finished());

        let request = format!("/callback?code=the%2Dcode&state={state}");
        let browser = tokio::spawn(async move { get(&address, &request).await });
        let callback = tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap();
        assert_eq!(callback.outcome, Ok("the-code".to_owned()));
        callback.answer.send(Page::SignedIn).unwrap();
        let page = browser.await.unwrap();
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("You are signed in."), "{page}");
        assert!(page.to_lowercase().contains("referrer-policy: no-referrer"), "{page}");
        assert!(!page.contains("the-code") && !page.contains(&state));
    }

    #[tokio::test]
    async fn the_way_to_the_portal_is_shown_once() {
        let (address, waiting) = waiting().await;
        for wrong in ["/start", "/start?key=", "/start?key=the-kex", "/start?key=the-key&x"] {
            assert!(get(&address, wrong).await.starts_with("HTTP/1.1 404"), "{wrong}");
        }
        let first = get(&address, "/start?key=the-key").await;
        assert!(first.starts_with("HTTP/1.1 303"), "{first}");
        assert!(first.contains("location: https://portal.example/?state=x\r\n"), "{first}");
        let second = get(&address, "/start?key=the-key").await;
        assert!(second.starts_with("HTTP/1.1 404") && second.contains("works once"), "{second}");
        assert!(!waiting.is_finished());
    }

    #[tokio::test]
    async fn a_refusal_comes_back_and_its_words_are_made_harmless() {
        let (address, waiting) = waiting().await;
        let state = grant().state().to_owned();
        let request = format!("/callback?error=access_denied&error_description=no%0A%1b[1m&state={state}");
        let browser = tokio::spawn(async move { get(&address, &request).await });
        let callback = waiting.await.unwrap();
        let description = Some("no[1m".to_owned());
        let refused = ExchangeError::Refused { error: SignInError::AccessDenied, description };
        assert_eq!(callback.outcome, Err(refused));
        drop(callback);
        assert!(browser.await.unwrap().contains("Not signed in."));
    }

    #[tokio::test]
    async fn a_flood_of_connections_does_not_keep_the_browser_out() {
        let (address, waiting) = waiting().await;
        let mut idle = Vec::new();
        for _ in 0..4 * MOST_CONNECTIONS {
            idle.push(TcpStream::connect(&address).await.unwrap());
        }
        let request = format!("/callback?code=c&state={}", grant().state());
        let browser = tokio::spawn(async move { get(&address, &request).await });
        let callback = tokio::time::timeout(REQUEST_LIMIT, waiting).await.unwrap().unwrap();
        assert_eq!(callback.outcome, Ok("c".to_owned()));
        callback.answer.send(Page::SignedIn).unwrap();
        assert!(browser.await.unwrap().starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn nonsense_and_endless_requests_are_turned_away() {
        let (address, waiting) = waiting().await;
        let endless = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(4 * LARGEST_REQUEST));
        for request in ["\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", &endless, "GET /callback"] {
            let answer = tokio::spawn({
                let (address, request) = (address.clone(), request.to_owned());
                async move { ask(&address, &request).await }
            });
            if request != "GET /callback" {
                let answer = answer.await.unwrap_or_default();
                assert!(!answer.contains("200 OK"), "{answer}");
            }
        }
        assert!(!waiting.is_finished());
    }

    #[test]
    fn a_code_is_bounded() {
        let grant = grant();
        let long = "x".repeat(LONGEST_CODE + 1);
        for code in ["", "a%20b", "a%00", &long] {
            let query = format!("code={code}&state={}", grant.state());
            assert!(matches!(read(&query, &grant), Some(Err(ExchangeError::Malformed(_)))), "{code}");
        }
    }
}
