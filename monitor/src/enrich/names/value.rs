//! A container's name as fields.

use crate::enrich::metadata::Metadata;
use crate::fields::{Field, FieldArg, Value};

/// The fields that rest on what a runtime wrote. While it is being read, nobody knows their values.
pub const NAME_FIELDS: &[Field] = &[
    Field::ContainerName,
    Field::ContainerImage,
    Field::ContainerImageRepository,
    Field::ContainerImageTag,
    Field::ContainerImageId,
    Field::ContainerImageDigest,
    Field::ContainerLabel,
    Field::ContainerPrivileged,
    Field::ContainerMetadata,
    Field::K8sPodName,
    Field::K8sNsName,
    Field::K8sContainerName,
];

/// What is known of the name of an event's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'e> {
    /// There is no container, or it is not known whether there is one.
    Nobody,
    /// It was not read in time.
    Pending,
    /// What the runtime wrote.
    Complete(&'e Metadata),
    /// There was nothing to read, or nothing that could be believed.
    Missing,
}

impl<'e> Named<'e> {
    /// The value of one of [`NAME_FIELDS`]; others are absent.
    pub fn value(self, field: Field, arg: FieldArg) -> Value<'e> {
        let metadata = match self {
            Named::Nobody => return Value::Absent,
            Named::Complete(metadata) => metadata,
            Named::Pending if field == Field::ContainerMetadata => return Value::text("pending"),
            Named::Missing if field == Field::ContainerMetadata => return Value::text("missing"),
            Named::Pending | Named::Missing => return Value::Absent,
        };
        let pod = metadata.pod.as_ref();
        let text = match (field, arg) {
            (Field::ContainerMetadata, _) => Some("complete"),
            (Field::ContainerPrivileged, _) => {
                return metadata.privileged.map_or(Value::Absent, Value::Bool);
            }
            (Field::ContainerName, _) => metadata.name.as_deref(),
            (Field::ContainerImage, _) => metadata.image.as_deref(),
            (Field::ContainerImageRepository, _) => metadata.image_repository.as_deref(),
            (Field::ContainerImageTag, _) => metadata.image_tag.as_deref(),
            (Field::ContainerImageId, _) => metadata.image_id.as_deref(),
            (Field::ContainerImageDigest, _) => metadata.image_digest.as_deref(),
            (Field::ContainerLabel, FieldArg::Name(key)) => metadata.labels.get(key.as_str()),
            (Field::K8sPodName, _) => pod.and_then(|pod| pod.name.as_deref()),
            (Field::K8sNsName, _) => pod.and_then(|pod| pod.namespace.as_deref()),
            (Field::K8sContainerName, _) => pod.and_then(|pod| pod.container_name.as_deref()),
            _ => None,
        };
        text.map_or(Value::Absent, Value::text)
    }
}
