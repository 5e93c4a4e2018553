// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The programs of the splice, in an object of their own: who does not ask for it has
 * neither its programs nor its maps. Compiled once per address family.
 */
#include "splice.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("sockops")
int splice_established(struct bpf_sock_ops *ops)
{
	if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		splice_join(ops);
	return 1;
}

SEC("sk_msg")
int splice_send(struct sk_msg_md *msg)
{
	splice_message(msg);
	return SK_PASS;
}
