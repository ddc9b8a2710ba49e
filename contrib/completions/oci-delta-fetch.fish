# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_oci_delta_fetch_global_optspecs
    string join \n repo= json progress= q/quiet v/verbose tag= exact= compress= to= reused= delta-policy= delta= delta-repo= verify-key= policy= expect-digest= timeout= dry-run base= rootfs= ostree-repo= platform= authfile= creds= cert-dir= tls-verify= registries-conf= insecure-policy skopeo= retries= stall-timeout= j/jobs= max-layer-size= max-window-log= h/help V/version
end

function __fish_oci_delta_fetch_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_oci_delta_fetch_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_oci_delta_fetch_using_subcommand
    set -l cmd (__fish_oci_delta_fetch_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l tag -d 'Name of the image in the repository [default: the reference it came from]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l exact -d 'Make layers exactly as they were published, so that the image keeps its digest: where the delta says how (auto), or fail (require), or never (off)' -r -f -a "auto\t'Where it is known how'
require\t'Or nothing is done'
off\t'Never'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l compress -d 'Keep rebuilt layers that are not exact compressed: none, gzip[:LEVEL] or zstd[:LEVEL]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l to -d 'Copy the image on from the repository, as it was published: to docker://, oci:, oci-archive:, dir: or containers-storage:' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l reused -d 'Layers that another image in the repository has, too: in a copy to oci: or oci-archive: they may be left out, where whoever reads it has them' -r -f -a "keep\t'They come along'
omit\t'They stay away; the manifest names them all the same'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l delta-policy -d 'Use a delta where it saves bytes (auto), or nothing else (only), or none (never)' -r -f -a "auto\t'Where they save bytes; what they fail to make is fetched whole'
only\t'Fail if the image cannot be had by deltas'
never\t'Fetch the image whole'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l delta -d 'Delta to use for REF, instead of searching for one (any REF)' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l delta-repo -d 'Repository in a registry that holds the deltas [default: the image\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l verify-key -d 'Public key (PEM) that must have signed the image, as cosign signs; one of them, where there are several' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l policy -d 'policy.json that must allow the image: sigstoreSigned by a key, reject, insecureAcceptAnything; nothing else' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l expect-digest -d 'Fail unless REF leads to this manifest' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l timeout -d 'Give up when the whole run takes longer' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l base -d 'Base image that is not in the repository (any REF)' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l rootfs -d 'Unpacked or running root file system of the base image' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l ostree-repo -d 'ostree repository with base images, as bootc and rpm-ostree keep them [default: /ostree/repo where it is]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l max-layer-size -d 'Largest size of a layer, unpacked; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l max-window-log -d 'Largest window of a delta or layer (zstd, LZMA), as a power of two' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l dry-run -d 'Show the plan and the exact bytes to download, change nothing'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -s V -l version -d 'Print version'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "fetch" -d 'Bring an image here (the default command)'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "create" -d 'Make a delta between two images'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "apply" -d 'Apply a delta for a place that has the layers which did not change'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "import" -d 'Apply a delta to an image in podman\'s storage'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "inspect" -d 'Show what a delta or image holds and what it would cost here'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "export" -d 'Copy an image from the repository to another place, as it was published'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "push" -d 'Store a delta in a registry so that fetch finds it'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "deltas" -d 'List the deltas that a registry has for an image'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "prune" -d 'Take superseded deltas off the list for an image'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "experimental-image-proxy" -d 'Be skopeo\'s image proxy for the client at standard input, with layers from deltas'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "bundle" -d 'Put what another place lacks of some images onto a medium'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "unbundle" -d 'Bring the images of a bundle into a registry or repository'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "inventory" -d 'List what a registry or repository has, for the side that makes bundles'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "serve" -d 'Be a mirror of registries for the container engines of this machine'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "doctor" -d 'Tell what is here, and whether a delta could be used'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "init" -d 'Make a repository'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "list" -d 'List what is in the repository'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "verify" -d 'Hash everything in the repository again'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "remove" -d 'Remove an image from the repository'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "gc" -d 'Delete blobs that no image needs'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_needs_command" -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l tag -d 'Name of the image in the repository [default: the reference it came from]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l exact -d 'Make layers exactly as they were published, so that the image keeps its digest: where the delta says how (auto), or fail (require), or never (off)' -r -f -a "auto\t'Where it is known how'
require\t'Or nothing is done'
off\t'Never'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l compress -d 'Keep rebuilt layers that are not exact compressed: none, gzip[:LEVEL] or zstd[:LEVEL]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l to -d 'Copy the image on from the repository, as it was published: to docker://, oci:, oci-archive:, dir: or containers-storage:' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l reused -d 'Layers that another image in the repository has, too: in a copy to oci: or oci-archive: they may be left out, where whoever reads it has them' -r -f -a "keep\t'They come along'
omit\t'They stay away; the manifest names them all the same'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l delta-policy -d 'Use a delta where it saves bytes (auto), or nothing else (only), or none (never)' -r -f -a "auto\t'Where they save bytes; what they fail to make is fetched whole'
only\t'Fail if the image cannot be had by deltas'
never\t'Fetch the image whole'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l delta -d 'Delta to use for REF, instead of searching for one (any REF)' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l delta-repo -d 'Repository in a registry that holds the deltas [default: the image\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l verify-key -d 'Public key (PEM) that must have signed the image, as cosign signs; one of them, where there are several' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l policy -d 'policy.json that must allow the image: sigstoreSigned by a key, reject, insecureAcceptAnything; nothing else' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l expect-digest -d 'Fail unless REF leads to this manifest' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l timeout -d 'Give up when the whole run takes longer' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l base -d 'Base image that is not in the repository (any REF)' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l rootfs -d 'Unpacked or running root file system of the base image' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l ostree-repo -d 'ostree repository with base images, as bootc and rpm-ostree keep them [default: /ostree/repo where it is]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l max-layer-size -d 'Largest size of a layer, unpacked; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l max-window-log -d 'Largest window of a delta or layer (zstd, LZMA), as a power of two' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l dry-run -d 'Show the plan and the exact bytes to download, change nothing'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand fetch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l preset -d 'How much effort to spend' -r -f -a "fast\t'For many images a minute'
default\t'For everyday builds'
best\t'For releases that many machines fetch'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l compression-level -d 'zstd level of the patches, 1 to 22 [default: 6, 10 or 19, by preset]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l format -d 'Format of the patches; every applier reads v1, extended ones are smaller and for our own fetch [default: both]' -r -f -a "v1\t'tardf1, which every applier reads'
v2\t'tardf2, with dictionary frames where they are smaller'
extended\t'Extended patches, which read the layers of the old image and what is compressed in them'
both\t'tardf1, and extended patches beside it where they are smaller'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l exact -d 'Note how layers are made exactly as they were published: where that can be found (auto), or fail (require), or never (off)' -r -f -a "auto\t'Where it is known how'
require\t'Or nothing is done'
off\t'Never'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l for -d 'Who applies the delta, which says what of the old image it can read' -r -f -a "auto\t'As the labels of the old image say'
any\t'Whoever has the image'
bootc\t'bootc or rpm-ostree, which keep usr and etc of an image'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l signature -d 'Take along a cosign signature of the new image (an artifact in a layout); may be repeated' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l memory -d 'Memory to use beside mapped files; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l binary-diff -d 'For callers of oci-delta: zstd and auto mean --format v2' -r -f -a "bsdiff\t''
zstd\t''
auto\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l max-bsdiff-size -d 'For callers of oci-delta; without effect, as there is no such limit' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l max-zstd-diff-size -d 'For callers of oci-delta; without effect' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l zstd-diff-level -d 'For callers of oci-delta; without effect' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l zstd-diff-window -d 'For callers of oci-delta; without effect' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l log-level -d 'For callers of oci-delta; without effect' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l max-layer-size -d 'Largest size of a layer, unpacked; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l max-window-log -d 'Largest window of a delta or layer (zstd, LZMA), as a power of two' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -s s -l statistics -d 'Print the account of layers and bytes, as oci-delta does'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l debug -d 'For callers of oci-delta; without effect'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l directory -l rootfs -d 'Unpacked or running root file system of the base image' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l container-storage -d 'Root of podman\'s storage that has the base image' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l ostree-repo -d 'ostree repository that has the base image' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l base -d 'Base image (any REF)' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l exact -d 'Make layers exactly as they were published, so that the image keeps its digest: where the delta says how (auto), or fail (require), or never (off)' -r -f -a "auto\t'Where it is known how'
require\t'Or nothing is done'
off\t'Never'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l verify-key -d 'Public key (PEM) that must have signed the image, as cosign signs; one of them, where there are several' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l policy -d 'policy.json that must allow the image: sigstoreSigned by a key, reject, insecureAcceptAnything; nothing else' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l log-level -d 'For callers of oci-delta; without effect' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l max-layer-size -d 'Largest size of a layer, unpacked; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l max-window-log -d 'Largest window of a delta or layer (zstd, LZMA), as a power of two' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l debug -d 'For callers of oci-delta; without effect'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l container-storage -d 'Root of the storage [default: this user\'s, by storage.conf]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -s t -l tag -d 'Name of the image in the storage' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l exact -d 'Make layers exactly as they were published, so that the image keeps its digest: where the delta says how (auto), or fail (require), or never (off)' -r -f -a "auto\t'Where it is known how'
require\t'Or nothing is done'
off\t'Never'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l verify-key -d 'Public key (PEM) that must have signed the image, as cosign signs; one of them, where there are several' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l policy -d 'policy.json that must allow the image: sigstoreSigned by a key, reject, insecureAcceptAnything; nothing else' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l log-level -d 'For callers of oci-delta; without effect' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l max-layer-size -d 'Largest size of a layer, unpacked; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l max-window-log -d 'Largest window of a delta or layer (zstd, LZMA), as a power of two' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l debug -d 'For callers of oci-delta; without effect'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l delta-policy -d 'Use a delta where it saves bytes (auto), or nothing else (only), or none (never)' -r -f -a "auto\t'Where they save bytes; what they fail to make is fetched whole'
only\t'Fail if the image cannot be had by deltas'
never\t'Fetch the image whole'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l delta -d 'Delta to use for REF, instead of searching for one (any REF)' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l delta-repo -d 'Repository in a registry that holds the deltas [default: the image\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l base -d 'Base image that is not in the repository (any REF)' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l rootfs -d 'Unpacked or running root file system of the base image' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l ostree-repo -d 'ostree repository with base images, as bootc and rpm-ostree keep them [default: /ostree/repo where it is]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l max-layer-size -d 'Largest size of a layer, unpacked; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l max-window-log -d 'Largest window of a delta or layer (zstd, LZMA), as a power of two' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l files -d 'Read the patches that would be taken and show, file by file, where their bytes go'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l to -d 'Where the image goes: docker://HOST/REPO[:TAG], oci:DIR[:NAME], oci-archive:FILE[:NAME], dir:DIR or containers-storage:[STORE]NAME' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l reused -d 'Layers that another image in the repository has, too: for oci: and oci-archive: they may be left out, where whoever reads the copy has them' -r -f -a "keep\t'They come along'
omit\t'They stay away; the manifest names them all the same'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l max-layer-size -d 'Largest size of a layer, unpacked; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l max-window-log -d 'Largest window of a delta or layer (zstd, LZMA), as a power of two' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l rewrite -d 'Let the image have another digest where it cannot be made as it was published'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand push" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l delta-repo -d 'Repository that holds the deltas [default: the image\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand deltas" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l keep -d 'Keep only the N last ones of the list; of those from one base only the smallest stays in any case' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l delta-repo -d 'Repository that holds the deltas [default: the image\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l dry-run -d 'Show what would go, change nothing'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand experimental-image-proxy" -l ostree-repo -d 'ostree repository with base images [default: /ostree/repo where it is]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand experimental-image-proxy" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand experimental-image-proxy" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand experimental-image-proxy" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand experimental-image-proxy" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand experimental-image-proxy" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand experimental-image-proxy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l from-file -d 'Images by a file: one a line, an image set of oc-mirror, or the YAML of skopeo sync; may be repeated' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l to -d 'Where the bundle goes: a folder, or an archive whose name ends in .tar. Several parts become folders in it, or archives beside it' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l have -d 'What the other side has: a file that inventory wrote there' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l since -d 'The other side has this image; may be repeated' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l preset -d 'How much effort to spend on those' -r -f -a "fast\t'For many images a minute'
default\t'For everyday builds'
best\t'For releases that many machines fetch'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l memory -d 'Memory to use for them beside mapped files; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l max-size -d 'Cut the bundle into parts of at most so many bytes; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l limit-rate -d 'Bytes a second over the network, both ways together; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l max-layer-size -d 'Largest size of a layer, unpacked; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l max-window-log -d 'Largest window of a delta or layer (zstd, LZMA), as a power of two' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l create -d 'Make deltas where none is published'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l without-referrers -d 'Leave out signatures, SBOMs and what else points to the images'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l dry-run -d 'Tell what would be written, and write nothing'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand bundle" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l map -d 'Images whose names begin with FROM get names that begin with TO; may be repeated, the first that fits counts' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l limit-rate -d 'Bytes a second over the network, both ways together; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l max-layer-size -d 'Largest size of a layer, unpacked; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l max-window-log -d 'Largest window of a delta or layer (zstd, LZMA), as a power of two' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l rewrite -d 'In a repository on this machine, let images have other digests where they cannot be made as they were published'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l dry-run -d 'Tell what would be brought, and change nothing'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand unbundle" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l limit-rate -d 'Bytes a second over the network, both ways together; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand inventory" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l listen -d 'Address to listen on; a socket that systemd hands over goes first' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l upstream -d 'Registries that may be asked, by their hosts [default: any that a client names, on loopback]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l print-config -d 'Print the configuration that leads an engine here, and end' -r -f -a "podman\t'Podman, buildah, skopeo, bootc: a file for /etc/containers/registries.conf.d'
containerd\t'Containerd, k3s: a hosts.toml for each registry'
crio\t'CRI-O: as podman, and how to load it'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l cache -d 'Where rebuilt layers are kept [default: in the user\'s cache directory]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l cache-size -d 'Most bytes of them; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l ostree-repo -d 'ostree repository with base images [default: /ostree/repo where it is]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l cert-dir -d 'Directory of certificates for the registries' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l max-layer-size -d 'Largest size of a layer, unpacked; a suffix K, M, G or T is allowed' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l max-window-log -d 'Largest window of a delta or layer (zstd, LZMA), as a power of two' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l ostree-repo -d 'ostree repository with base images [default: /ostree/repo where it is]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l platform -d 'Platform to choose from a multi-arch image: os/arch[/variant] [default: this machine\'s]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l authfile -d 'Registry credentials file [default: skopeo\'s]' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l creds -d 'Registry credentials; they beat --authfile' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l cert-dir -d 'Directory of certificates for the registry' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l tls-verify -d 'Require HTTPS and a valid certificate' -r -f -a "true\t''
false\t''"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l registries-conf -d 'registries.conf to use' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l skopeo -d 'skopeo to run' -r -F
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l retries -d 'Times a transient fault is tried again' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l stall-timeout -d 'Give up on a transfer that stands still for this many seconds' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -s j -l jobs -d 'Blobs at once [default: 2 from a registry, the number of cores from a local source]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l insecure-policy -d 'Accept images that the signature policy does not allow'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand init" -l algorithm -d 'Hash that names the objects of a composefs repository [default: sha512]' -r -f -a "sha256\t'SHA-256: less work, but on CPUs with AVX-512'
sha512\t'SHA-512, what `cfsctl init` takes'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand init" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand init" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand init" -l insecure -d 'Do not demand fs-verity of a composefs repository\'s file system'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand init" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand init" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand init" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand list" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand list" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand list" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand list" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand list" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand verify" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand verify" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand verify" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand verify" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand verify" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand remove" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand remove" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand remove" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand remove" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand remove" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand remove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand gc" -l repo -d 'Repository: an OCI image layout, composefs:DIR or podman\'s containers-storage:[STORE] [default: in the user\'s data directory]' -r
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand gc" -l progress -d 'Progress on standard error' -r -f -a "auto\t'Bars on a terminal, plain lines elsewhere'
bar\t'Bars'
json\t'JSON lines'
none\t'Nothing'"
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand gc" -l untagged -d 'Remove images that have no name, too, but not what belongs to one that stays'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand gc" -l json -d 'Print one JSON object on standard output'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand gc" -s q -l quiet -d 'Print errors only'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand gc" -s v -l verbose -d 'Print the causes of errors, too'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand gc" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "fetch" -d 'Bring an image here (the default command)'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "create" -d 'Make a delta between two images'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "apply" -d 'Apply a delta for a place that has the layers which did not change'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "import" -d 'Apply a delta to an image in podman\'s storage'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "inspect" -d 'Show what a delta or image holds and what it would cost here'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "export" -d 'Copy an image from the repository to another place, as it was published'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "push" -d 'Store a delta in a registry so that fetch finds it'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "deltas" -d 'List the deltas that a registry has for an image'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "prune" -d 'Take superseded deltas off the list for an image'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "experimental-image-proxy" -d 'Be skopeo\'s image proxy for the client at standard input, with layers from deltas'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "bundle" -d 'Put what another place lacks of some images onto a medium'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "unbundle" -d 'Bring the images of a bundle into a registry or repository'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "inventory" -d 'List what a registry or repository has, for the side that makes bundles'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "serve" -d 'Be a mirror of registries for the container engines of this machine'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "doctor" -d 'Tell what is here, and whether a delta could be used'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "init" -d 'Make a repository'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "list" -d 'List what is in the repository'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "verify" -d 'Hash everything in the repository again'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "remove" -d 'Remove an image from the repository'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "gc" -d 'Delete blobs that no image needs'
complete -c oci-delta-fetch -n "__fish_oci_delta_fetch_using_subcommand help; and not __fish_seen_subcommand_from fetch create apply import inspect export push deltas prune experimental-image-proxy bundle unbundle inventory serve doctor init list verify remove gc help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
