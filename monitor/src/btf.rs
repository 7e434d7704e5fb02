//! What the running kernel's BTF says: offsets of structure members, which functions and tracepoints exist.

use std::fs;
use std::path::Path;

use btf_rs::{Btf, FuncProto, Struct, Type};
use monitor_common::control::{MISSING, Need, Offsets};

/// Why a kernel's BTF cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is not there or is not BTF.
    #[error(
        "cannot read the kernel's type information from {path}: {source}. Ringfence needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (every Debian, Ubuntu, Fedora and RHEL kernel of the last years is)"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// What went wrong.
        source: btf_rs::Error,
    },
    /// The chosen hierarchy's controller is mounted, but the kernel does not say where tasks hold it.
    #[error(
        "the kernel's type information has no `{0}` in `enum cgroup_subsys_id`: choose another cgroup hierarchy with --cgroup-hierarchy"
    )]
    NoController(&'static str),
    /// A structure member that the programs cannot do without is not there.
    #[error(
        "the kernel's type information has no `{ty}.{path}`: this kernel is older than 5.10, or newer than this version of Ringfence knows"
    )]
    NoMember {
        /// The structure.
        ty: &'static str,
        /// The member's path.
        path: &'static str,
    },
}

/// A kernel's BTF, ready for questions.
pub struct KernelTypes(Btf);

impl KernelTypes {
    /// Where the running kernel shows its BTF (since 5.4).
    pub const PATH: &str = "/sys/kernel/btf/vmlinux";

    /// Reads the file.
    ///
    /// # Errors
    /// [`BtfError::Unreadable`].
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        // Read at once: the library reads a file piece by piece and asks where it is after each (126,000 calls).
        fs::read(path)
            .map_err(btf_rs::Error::from)
            .and_then(|bytes| Btf::from_bytes(&bytes))
            .map(KernelTypes)
            .map_err(|source| BtfError::Unreadable { path: path.display().to_string(), source })
    }

    /// Finds every offset that the programs need.
    ///
    /// # Errors
    /// [`BtfError::NoMember`] for a required member that is missing.
    pub fn offsets(&self) -> Result<[u32; Offsets::COUNT], BtfError> {
        let mut values = [MISSING; Offsets::COUNT];
        for (value, spec) in values.iter_mut().zip(Offsets::SPEC) {
            match (self.member_offset(spec.ty, spec.path), spec.need) {
                (Some(offset), _) => *value = offset,
                (None, Need::Optional) => {}
                (None, Need::Required) => return Err(BtfError::NoMember { ty: spec.ty, path: spec.path }),
            }
        }
        Ok(values)
    }

    /// Byte offset of a member; dots descend into embedded structures. The structure's size for an empty path.
    pub fn member_offset(&self, ty: &str, path: &str) -> Option<u32> {
        let mut structure = self.structure(ty)?;
        if path.is_empty() {
            return u32::try_from(structure.size()).ok();
        }
        let mut bits = 0;
        for (i, name) in path.split('.').enumerate() {
            if i > 0 && structure.members.is_empty() {
                return None;
            }
            let (offset, inner) = self.member(&structure, name)?;
            bits += offset;
            structure = inner.unwrap_or_else(|| Struct::clone(&structure));
        }
        Some(bits / 8)
    }

    /// Finds a member, also inside anonymous structures and unions; its offset in bits, and its type if that
    /// is a structure.
    fn member(&self, structure: &Struct, name: &str) -> Option<(u32, Option<Struct>)> {
        for member in &structure.members {
            let inner = || self.0.chained_type_iter(member).find_map(as_structure);
            let member_name = self.0.resolve_name(member).unwrap_or_default();
            if member_name == name {
                return Some((member.bit_offset(), inner()));
            }
            if member_name.is_empty() {
                let found = inner().and_then(|inner| self.member(&inner, name));
                if let Some((offset, ty)) = found {
                    return Some((member.bit_offset() + offset, ty));
                }
            }
        }
        None
    }

    fn structure(&self, name: &str) -> Option<Struct> {
        let types = self.0.resolve_types_by_name(name).ok()?;
        types.into_iter().find_map(as_structure)
    }

    /// True if the kernel has a function of that name with known arguments.
    pub fn has_function(&self, name: &str) -> bool {
        self.function_args(name).is_some()
    }

    /// Number of a function's arguments.
    pub fn function_args(&self, name: &str) -> Option<usize> {
        self.prototype(name).map(|proto| proto.parameters.len())
    }

    /// True if a function's first argument points to a structure whose members are known. Where a compilation unit
    /// only named the structure, the verifier refuses to read the argument (`btf_ctx_access`, "type FWD").
    pub fn first_argument_is_complete(&self, name: &str) -> bool {
        let Some(proto) = self.prototype(name) else { return false };
        let Some(argument) = proto.parameters.first() else { return false };
        self.0.chained_type_iter(argument).find_map(as_structure).is_some()
    }

    fn prototype(&self, name: &str) -> Option<FuncProto> {
        let types = self.0.resolve_types_by_name(name).ok()?;
        let function = types.into_iter().find_map(|ty| match ty {
            Type::Func(function) => Some(function),
            _ => None,
        })?;
        match self.0.resolve_chained_type(&function).ok()? {
            Type::FuncProto(proto) => Some(proto),
            _ => None,
        }
    }

    /// Value of a member of an enumeration of 32 bits.
    pub fn enum_value(&self, name: &str, member: &str) -> Option<u32> {
        let types = self.0.resolve_types_by_name(name).ok()?;
        types.into_iter().find_map(|ty| match ty {
            Type::Enum(of) => {
                of.members.iter().find_map(|m| (self.0.resolve_name(m).ok()? == member).then(|| m.val()))
            }
            _ => None,
        })
    }

    /// True if the kernel has a tracepoint of that name, which BTF shows as `btf_trace_NAME`.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        let types = self.0.resolve_types_by_name(&format!("btf_trace_{name}"));
        types.is_ok_and(|types| types.iter().any(|ty| matches!(ty, Type::Typedef(_))))
    }
}

fn as_structure(ty: Type) -> Option<Struct> {
    match ty {
        Type::Struct(structure) | Type::Union(structure) => Some(structure),
        _ => None,
    }
}
