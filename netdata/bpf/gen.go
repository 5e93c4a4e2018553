package bpf

// The objects are little-endian, which is every platform bothy runs on. The
// include path is where Debian keeps asm/types.h; elsewhere it does no harm.
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v3 -DFAMILY=4 -idirafter /usr/include/x86_64-linux-gnu" -type tuple -type node_state -type endpoint -type iface -type service_key -type service -type slot -type affinity_key -type affinity -type flow -type nat -type datagram_key -type datagram_peer -type peer_key -type rule_key -type event -type listener -type event_cpu IPv4 src/dataplane.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v3 -DFAMILY=6 -idirafter /usr/include/x86_64-linux-gnu" -type tuple -type node_state -type endpoint -type iface -type service_key -type service -type slot -type affinity_key -type affinity -type flow -type nat -type datagram_key -type datagram_peer -type peer_key -type rule_key -type event -type listener -type event_cpu IPv6 src/dataplane.bpf.c
