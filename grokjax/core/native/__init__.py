"""The C++ for CPUs: compiled for this machine at first use."""
