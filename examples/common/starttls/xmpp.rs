//! XMPP (RFC 6120 section 5).

use std::io;

use tokio::io::AsyncWriteExt;

use super::{Plain, read_to, refusal};

/// A server that goes on and on with features is not waited for.
const MOST_TAGS: usize = 1000;

pub(super) async fn xmpp(peer: &mut impl Plain, name: &str) -> io::Result<()> {
    let open = format!(
        "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>",
        escaped(name)
    );
    peer.write_all(open.as_bytes()).await?;
    if !features_offer_tls(peer).await? {
        return Err(refusal("the stream's features list no starttls"));
    }
    peer.write_all(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await?;
    let answer = tag(peer).await?;
    if !is(&answer, "<proceed") {
        return Err(refusal(&answer));
    }
    if !answer.ends_with("/>") {
        tag(peer).await?;
    }
    Ok(())
}

/// Reads to the end of the features.
async fn features_offer_tls(peer: &mut impl Plain) -> io::Result<bool> {
    let mut is_offered = false;
    for _ in 0..MOST_TAGS {
        let tag = tag(peer).await?;
        is_offered |= is(&tag, "<starttls");
        if tag == "</stream:features>" || is(&tag, "<stream:features") && tag.ends_with("/>") {
            return Ok(is_offered);
        }
        if is(&tag, "<stream:error") || tag == "</stream:stream>" {
            return Ok(false);
        }
    }
    Err(refusal("the answer is too long"))
}

/// The next tag, without the text ahead of it.
async fn tag(peer: &mut impl Plain) -> io::Result<String> {
    let text = read_to(peer, b'>').await?;
    Ok(text.find('<').map_or(String::new(), |begin| text[begin..].to_owned()))
}

/// Whether a tag has this name, not only one that begins so.
fn is(tag: &str, name: &str) -> bool {
    tag.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '\t', '\r', '\n', '/', '>']))
}

fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}
