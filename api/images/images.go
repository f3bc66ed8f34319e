// Package images is the contract between the agent and the images helper of a node (libexec/gleaner/images), which makes images of
// the node's Podman, of registries and of archives into roots for sandboxes. It is spoken on a Unix stream socket that accepts only the
// agent's uid and root, in frames of package jsonframe; requests carry an id and are answered in any order. Without the helper there are
// no images, and everything else goes on. The helper is a module of its own and repeats these types: fields are only added.
package images

// Verb names what is asked.
type Verb string

const (
	// Take makes an image's root available and keeps it, and the image in Podman, until its holder drops it. The second Take of an
	// image on a node costs no more than a look. It may last as long as a pull does.
	Take Verb = "take"
	// Drop ends what a holder keeps. Dropping nothing succeeds.
	Drop Verb = "drop"
	// Keep drops what anybody holds but those named: an agent that was restarted says who is left.
	Keep Verb = "keep"
)

// Request is one call.
type Request struct {
	ID   uint64 `json:"id"`
	Verb Verb   `json:"verb"`
	// Image is, for Take, an absolute path of an archive (OCI, Docker's, or a root file system's tarball; plain or gzip), or else a
	// name of the node's Podman or a reference that it can pull.
	Image   string   `json:"image,omitempty"`
	Holder  string   `json:"holder,omitempty"`  // Take, Drop: id of an executor
	Holders []string `json:"holders,omitempty"` // Keep
	// Take: who asks. An archive is opened with these ids alone.
	UID    uint32   `json:"uid,omitempty"`
	GID    uint32   `json:"gid,omitempty"`
	Groups []uint32 `json:"groups,omitempty"`
}

// Reply answers the request with the same ID.
type Reply struct {
	ID     uint64 `json:"id"`
	Error  string `json:"error,omitempty"`
	Key    string `json:"key,omitempty"`    // Take: 64 hexadecimal digits; the launcher finds the root by it
	Digest string `json:"digest,omitempty"` // Take: sha256:… of the image's manifest, for records
	Fabric bool   `json:"fabric,omitempty"` // Take: the image has libfabric, so that callers of other nodes can be served
}
