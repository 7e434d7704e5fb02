//! Names of images, as `docker pull` and its like take them.

use crate::enrich::metadata::{Metadata, text};

/// Puts an image's name, and what its parts say, into the metadata. `docker.io/library/nginx:1.27@sha256:…` has a
/// repository, a tag and a digest; `sha256:…` and a bare id of 64 digits are ids.
pub(super) fn set(metadata: &mut Metadata, name: &str) {
    metadata.image = text(name);
    if metadata.image.is_none() {
        return;
    }
    if let Some(id) = id(name) {
        metadata.image_id.get_or_insert_with(|| id.to_owned());
        return;
    }
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, id(digest).filter(|_| digest.starts_with(SHA256)).map(|_| digest)),
        None => (name, None),
    };
    // A colon before a slash belongs to the registry's port.
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, text(tag)),
        _ => (name, None),
    };
    metadata.image_repository = text(repository);
    metadata.image_tag = tag;
    if let Some(digest) = digest {
        metadata.image_digest = Some(digest.to_owned());
    }
}

/// What digests begin with.
const SHA256: &str = "sha256:";

/// The 64 digits of a digest or a bare id.
pub(super) fn id(text: &str) -> Option<&str> {
    let id = text.strip_prefix(SHA256).unwrap_or(text);
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

/// A digest, if it has the form of one.
pub(super) fn digest(text: &str) -> Option<String> {
    (text.starts_with(SHA256) && id(text).is_some()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let sha = format!("sha256:{}", "0".repeat(64));
        let with = |name: &str| format!("{name}@{sha}");
        let (by_tag_and_digest, by_digest, wrong) = (with("web:1"), with("host:5000/a/web"), "web@sha256:12");
        let table = [
            ("web", Some("web"), None, None),
            ("docker.io/library/web:1.27", Some("docker.io/library/web"), Some("1.27"), None),
            ("host:5000/web", Some("host:5000/web"), None, None),
            ("host:5000/web:1", Some("host:5000/web"), Some("1"), None),
            (&*by_tag_and_digest, Some("web"), Some("1"), Some(&*sha)),
            (&*by_digest, Some("host:5000/a/web"), None, Some(&*sha)),
            (wrong, Some("web"), None, None),
            ("", None, None, None),
            (":", None, None, None),
        ];
        for (name, repository, tag, digest) in table {
            let mut found = Metadata::default();
            set(&mut found, name);
            assert_eq!(found.image.as_deref(), Some(name).filter(|name| !name.is_empty()));
            let parts = (found.image_repository.as_deref(), found.image_tag.as_deref());
            assert_eq!((parts, found.image_digest.as_deref()), ((repository, tag), digest), "{name}");
            assert_eq!(found.image_id, None, "{name}");
        }
        for name in [&*sha, &sha[7..]] {
            let mut found = Metadata::default();
            set(&mut found, name);
            assert_eq!(found.image_id.as_deref(), Some(&sha[7..]));
            assert_eq!((found.image_repository, found.image_tag), (None, None));
        }
    }
}
