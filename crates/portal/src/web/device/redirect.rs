//! Where the browser goes back to: a port of the machine that it runs on, and nothing else.

use url::{Host, Url};

/// The longest address.
const LONGEST: usize = 256;

/// A loopback redirect (RFC 8252, section 7.3), if the text is one exactly as a browser would
/// write it: `http`, the address `127.0.0.1` or `[::1]`, a port, a path. Names are none, not even
/// `localhost`: they are what a resolver says (section 8.3).
pub(super) fn loopback(text: &str) -> Option<Url> {
    if text.len() > LONGEST {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_loopback = match url.host()? {
        Host::Ipv4(v4) => v4.octets() == [127, 0, 0, 1],
        Host::Ipv6(v6) => v6.is_loopback(),
        Host::Domain(_) => false,
    };
    let is_plain = url.scheme() == "http"
        && url.port().is_some_and(|port| port != 0)
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    // Written in any other way, one reader may find another host in it than the next.
    (is_loopback && is_plain && url.as_str() == text).then_some(url)
}

/// The same with an answer in its query (RFC 6749, section 4.1.2).
pub(super) fn with_answer(mut url: Url, answer: (&str, &str), state: &str) -> String {
    url.query_pairs_mut().append_pair(answer.0, answer.1).append_pair("state", state);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_browser_goes_nowhere_but_to_its_own_machine() {
        for good in ["http://127.0.0.1:49152/", "http://127.0.0.1:1/back", "http://[::1]:8080/back"] {
            assert!(loopback(good).is_some(), "{good}");
        }
        for wrong in [
            "http://127.0.0.1.evil:1/",
            "http://127.0.0.1:1@evil/",
            "http://evil@127.0.0.1:1/",
            "http://a:b@127.0.0.1:1/",
            "http://127.0.0.1:1/#x",
            "http://127.0.0.1:1/?x=1",
            "http://127.0.0.1/",
            "http://127.0.0.1:80/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:1",
            "http://127.0.0.1:1\\@evil/",
            "http://127.1:1/",
            "http://0x7f000001:1/",
            "http://2130706433:1/",
            "http://127.0.0.2:1/",
            "http://0.0.0.0:1/",
            "http://[::ffff:127.0.0.1]:1/",
            "http://[0:0:0:0:0:0:0:1]:1/",
            "http://localhost:1/",
            "https://127.0.0.1:1/",
            "HTTP://127.0.0.1:1/",
            "http://127.0.0.1:1/ ",
            "http://127.0.0.1:1/\n",
            "http://127.0.0.1:1/\"><script>",
            "http:127.0.0.1:1/",
            "//127.0.0.1:1/",
            "javascript:alert(1)//127.0.0.1:1/",
            "",
        ] {
            assert!(loopback(wrong).is_none(), "{wrong}");
        }
        assert!(loopback(&format!("http://127.0.0.1:1/{}", "a".repeat(300))).is_none());
    }

    #[test]
    fn what_the_device_said_cannot_add_to_the_answer() {
        let url = loopback("http://127.0.0.1:1/back").unwrap();
        let text = with_answer(url, ("code", "a.b"), "x&code=y#z");
        assert_eq!(text, "http://127.0.0.1:1/back?code=a.b&state=x%26code%3Dy%23z");
    }
}
