//! XMPP (RFC 6120 section 5).

use std::io;

use super::{Plain, Talk, refusal, refused};

pub(super) async fn xmpp(talk: &mut Talk<'_, impl Plain>, name: &str) -> io::Result<()> {
    let open = format!(
        "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>",
        for_xml(name)
    );
    talk.say(open.as_bytes()).await?;
    let mut header = tag(talk).await?;
    if is(&header, "<?xml") {
        header = tag(talk).await?;
    }
    if !is(&header, "<stream:stream") || header.ends_with("/>") {
        return Err(refused(&header));
    }
    if !features_offer_tls(talk).await? {
        return Err(refusal("the stream's features list no starttls"));
    }
    talk.say(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await?;
    // RFC 6120 section 5.3.1: from here on, whitespace is not allowed either.
    let answer = talk.read_to(b'>').await?;
    if !is(&answer, "<proceed") {
        return Err(refused(&answer));
    }
    match answer.ends_with("/>") {
        true => Ok(()),
        false => match talk.read_to(b'>').await?.as_str() {
            "</proceed>" => Ok(()),
            other => Err(refused(other)),
        },
    }
}

/// Reads the features. Text is allowed only inside a feature, as in the list of SASL mechanisms.
async fn features_offer_tls(talk: &mut Talk<'_, impl Plain>) -> io::Result<bool> {
    let features = tag(talk).await?;
    if !is(&features, "<stream:features") {
        return Err(refused(&features));
    }
    let (mut is_offered, mut depth) = (false, usize::from(!features.ends_with("/>")));
    while depth > 0 {
        let tag = if depth == 1 { tag(talk).await? } else { tag_after_text(talk).await? };
        is_offered |= depth == 1 && is(&tag, "<starttls");
        match tag.strip_prefix("</") {
            Some(_) => depth -= 1,
            None if !tag.ends_with("/>") => depth += 1,
            None => {}
        }
        if depth == 0 && tag != "</stream:features>" || tag.starts_with("<!") || tag.starts_with("<?") {
            return Err(refused(&tag));
        }
    }
    Ok(is_offered)
}

/// The next tag. Only whitespace may come before it.
async fn tag(talk: &mut Talk<'_, impl Plain>) -> io::Result<String> {
    let text = talk.read_to(b'>').await?;
    let tag = text.trim_start_matches([' ', '\t', '\r', '\n']);
    if tag.starts_with('<') { Ok(tag.to_owned()) } else { Err(refused(&text)) }
}

/// The next tag, without the text before it.
async fn tag_after_text(talk: &mut Talk<'_, impl Plain>) -> io::Result<String> {
    let text = talk.read_to(b'>').await?;
    text.find('<').map(|begin| text[begin..].to_owned()).ok_or_else(|| refused(&text))
}

/// Whether a tag has this name, not only one that begins so.
fn is(tag: &str, name: &str) -> bool {
    tag.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '\t', '\r', '\n', '/', '>']))
}

fn for_xml(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}
