package sandbox

// nativeArch is libseccomp's name of this architecture. On x86-64 that shuts the 32-bit and x32 entries too.
const nativeArch = "amd64"
