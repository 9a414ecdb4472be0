"""What a CPU's cores do faster in C++ than in XLA's programs. Without a compiler nothing here is used."""
