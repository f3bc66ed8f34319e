package sandbox

// nativeArch is libseccomp's name of this architecture.
const nativeArch = "arm64"
