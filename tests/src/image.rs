//! The pause image, made here of one file: no registry, no compiler.

use sha2::{Digest, Sha256};

use crate::error::{Doing, LabError, Result};

/// The image's name, which the runtime's configuration asks for.
pub(crate) const NAME: &str = "localhost/pause:3";

/// ```text
/// again: mov eax, 34   ; pause
///        syscall
///        jmp again
/// ```
const X86_64: &[u8] = &[0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

/// ppoll without descriptors and time limit, as this architecture has no pause. Written by the manual; not yet run on such a machine.
///
/// ```text
/// again: mov x0, #0
///        mov x1, #0
///        mov x2, #0
///        mov x3, #0
///        mov x8, #73   ; ppoll
///        svc #0
///        b again
/// ```
const AARCH64: &[u8] = &[
    0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x28,
    0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
];

/// Where the program is loaded.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// A static program that sleeps until it is killed.
///
/// # Errors
///
/// [`LabError::Missing`] on an architecture for which nobody wrote the few instructions.
pub(crate) fn pause_program() -> Result<Vec<u8>> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(elf(62, X86_64)),
        "aarch64" => Ok(elf(183, AARCH64)),
        other => Err(LabError::Missing(format!(
            "there is no pause program for {other}: add one to image.rs"
        ))),
    }
}

/// An ELF64 file, little-endian, of one segment that holds the headers and the code.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    let word = |file: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    let long = |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    half(&mut file, &[2, machine]); // an executable of that machine
    word(&mut file, &[1]);
    long(&mut file, &[BASE + HEADERS, 64, 0]); // entry, program headers, no sections
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, 1, 64, 0, 0]); // sizes and counts of the headers
    word(&mut file, &[1, 5]); // load, readable and executable
    long(&mut file, &[0, BASE, BASE, size, size, 0x1000]);
    file.extend(code);
    file
}

/// An archive as `docker save` writes it, which `ctr images import` reads.
///
/// # Errors
///
/// As [`pause_program`].
pub(crate) fn archive() -> Result<Vec<u8>> {
    archive_of(NAME, &[("pause", 0o755, &pause_program()?)])
}

/// The same of another name, with a file of its own content: no blob of it is the pause image's.
///
/// # Errors
///
/// As [`pause_program`].
pub(crate) fn another(name: &str) -> Result<Vec<u8>> {
    archive_of(
        name,
        &[
            ("pause", 0o755, &pause_program()?),
            ("name", 0o644, name.as_bytes()),
        ],
    )
}

fn archive_of(name: &str, files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let layer = tar_of(files)?;
    let architecture = if std::env::consts::ARCH == "aarch64" {
        "arm64"
    } else {
        "amd64"
    };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&Sha256::digest(&layer)))]},
    });
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    tar_of(&[
        ("manifest.json", 0o644, manifest.to_string().as_bytes()),
        ("config.json", 0o644, config.to_string().as_bytes()),
        ("layer.tar", 0o644, &layer),
    ])
}

fn tar_of(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        archive
            .append_data(&mut header, name, *content)
            .doing(|| format!("put {name} into an archive"))?;
    }
    archive.into_inner().doing(|| "finish an archive".to_owned())
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_has_the_size_that_its_headers_say() {
        let file = elf(62, X86_64);
        assert_eq!(file.len(), 64 + 56 + X86_64.len());
        assert_eq!(&file[..4], b"\x7fELF");
    }
}
