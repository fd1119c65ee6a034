//! OCSP responses for our own certificates (RFC 6960, section 4.2.1).
//!
//! Clients check the signature. This module finds only the mistakes that an operator makes: a file that contains no
//! response, a response in which the responder refuses the request, a response for another certificate, or an old
//! response.

use der::asn1::AnyRef;
use der::{Tag, TagNumber, Tagged};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::pem::Source;
use super::{ConfigWarning, WarningKind};
use crate::certificate::{Certificate, elements, first, inside, seconds, time};
use crate::error::{ConfigProblem, Error};

/// The response of a source, checked against the certificate.
pub(super) fn read(source: &Source, own: &CertificateDer<'_>) -> Result<(Vec<u8>, Option<ConfigWarning>), Error> {
    let response = source.bytes()?;
    let bad = |why: String| source.fail(ConfigProblem::BadOcspResponse(why));
    let answers = answers(&response).map_err(bad)?;
    let serial = Certificate::from_der(own).map(|parsed| parsed.serial);
    let Some(answer) = answers.iter().find(|answer| Some(answer.serial) == serial) else {
        return Err(bad("it is a response for another certificate".into()));
    };
    let now = UnixTime::now().as_secs();
    let is_old = answer.next_update.is_some_and(|end| end < now);
    let detail = match (answer.is_good, is_old) {
        (false, _) => "the OCSP response does not say that the certificate is good, so clients will refuse it",
        (true, true) => "the OCSP response is past its next update, so clients will ignore or refuse it",
        (true, false) => return Ok((response.into_owned(), None)),
    };
    let warning = ConfigWarning { file: source.file(), kind: WarningKind::OcspResponse, detail: detail.into() };
    Ok((response.into_owned(), Some(warning)))
}

/// The part of a response about one certificate.
struct Answer<'a> {
    serial: &'a [u8],
    /// The responder says that the certificate is not revoked.
    is_good: bool,
    next_update: Option<u64>,
}

fn answers(response: &[u8]) -> Result<Vec<Answer<'_>>, String> {
    const NO_RESPONSE: &str = "it is not the DER of an OCSP response";
    let fields = first(response).filter(|(_, rest)| rest.is_empty()).and_then(|(all, _)| of_sequence(all));
    let fields = fields.ok_or(NO_RESPONSE)?;
    let status = fields.first().and_then(|status| inside(*status, Tag::Enumerated)).ok_or(NO_RESPONSE)?;
    if status != [0] {
        let name = match status {
            [1] => "malformedRequest",
            [2] => "internalError",
            [3] => "tryLater",
            [5] => "sigRequired",
            [6] => "unauthorized",
            _ => "an unknown status",
        };
        return Err(format!("the responder has answered with {name} and not with a response"));
    }
    fields.get(1).and_then(|bytes| of_basic(*bytes)).ok_or(NO_RESPONSE.into())
}

fn of_basic(bytes: AnyRef<'_>) -> Option<Vec<Answer<'_>>> {
    let [_, basic] = of_sequence(first(bytes.value())?.0)?[..] else { return None };
    let basic = of_sequence(first(inside(basic, Tag::OctetString)?)?.0)?;
    let data = of_sequence(*basic.first()?)?;
    // The fields before the list of responses (version, responder, time) have other tags than SEQUENCE.
    let list = data.iter().find(|field| field.tag() == Tag::Sequence)?;
    of_sequence(*list)?.into_iter().map(of_single).collect()
}

fn of_single(single: AnyRef<'_>) -> Option<Answer<'_>> {
    const GOOD: Tag = Tag::ContextSpecific { constructed: false, number: TagNumber(0) };
    const NEXT_UPDATE: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
    let [id, status, _, optional @ ..] = &of_sequence(single)?[..] else { return None };
    let serial = inside(*of_sequence(*id)?.get(3)?, Tag::Integer)?;
    let next_update = optional.iter().find(|field| field.tag() == NEXT_UPDATE);
    let next_update = next_update.and_then(|field| time(first(field.value())?.0)).map(seconds);
    Some(Answer { serial, is_good: status.tag() == GOOD, next_update })
}

fn of_sequence(element: AnyRef<'_>) -> Option<Vec<AnyRef<'_>>> {
    elements(inside(element, Tag::Sequence)?)
}
