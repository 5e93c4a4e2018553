package attack_test

import (
	"time"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/internal/signers/x509test"
	"github.com/bothy-os/bothy/reconciler/acceptance"
)

// certify makes a commit that a certificate's key signs.
func (w *world) certify(by *x509test.Identity, proof x509test.Proof) {
	w.Write("clusters/default/a.yaml", change)
	raw := w.draft("change")
	w.forge(withSignature(raw, by.Sign(w.t, []byte(raw), proof)))
}

// logged is a log entry of the time in which sigrid's certificates are valid.
func logged(by *x509test.Witness) x509test.Proof {
	return x509test.Proof{Log: by, At: minted().Add(time.Minute)}
}

var certificates = []attack{
	{
		name: "authority that nobody pinned",
		try: func(w *world, legit bool) {
			leaf := x509test.Leaf{Email: "cora@corp.example", NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
			from := w.other
			if legit {
				from = w.corp
			}
			w.certify(from.Issue(w.t, leaf), x509test.Proof{})
		},
		rule: acceptance.RuleSignature, class: signers.Untrusted, says: []string{"cora@corp.example", `no authority pinned for "cora" issued`},
	},
	{
		name: "somebody else at the same company",
		try: func(w *world, legit bool) {
			w.certify(w.cora(w.t, func(l *x509test.Leaf) {
				if !legit {
					l.Email = "mallory@corp.example"
				}
			}), x509test.Proof{})
		},
		rule: acceptance.RuleSignature, class: signers.UnknownKey, says: []string{"mallory@corp.example", "does not list"},
	},
	{
		name: "certificate that has expired",
		try: func(w *world, legit bool) {
			w.certify(w.cora(w.t, func(l *x509test.Leaf) {
				if !legit {
					l.NotAfter = time.Now().Add(-time.Hour)
				}
			}), x509test.Proof{Claimed: time.Now().Add(-2 * time.Hour)})
		},
		rule: acceptance.RuleSignature, class: signers.Expired, says: []string{`signed by "cora"`, "not valid"},
	},
	{
		name: "CMS signature copied from another commit",
		try: func(w *world, legit bool) {
			w.certify(w.cora(w.t, nil), x509test.Proof{})
			if legit {
				return
			}
			copied := signatureOf(w.t, w.Raw("refs/heads/main"))
			w.Git("reset", "-q", "--hard", w.base)
			w.Write("clusters/default/a.yaml", change+"# more\n")
			w.forge(withSignature(w.draft("forged"), copied))
		},
		rule: acceptance.RuleSignature, class: signers.Mismatch, says: []string{"signature of cora@corp.example", "not made for this commit"},
	},
	{
		name: "Sigstore certificate without a log entry",
		try: func(w *world, legit bool) {
			proof := x509test.Proof{Claimed: minted().Add(time.Minute)}
			if legit {
				proof = logged(w.witness)
			}
			w.certify(w.sigrid(w.t, nil), proof)
		},
		rule: acceptance.RuleSignature, class: signers.Untimed, says: []string{"sigrid@example.org", "nobody whom the trust root lists attests when"},
	},
	{
		name: "Sigstore certificate with the entry of a log that nobody pinned",
		try: func(w *world, legit bool) {
			proof := logged(w.stranger)
			if legit {
				proof = logged(w.witness)
			}
			w.certify(w.sigrid(w.t, nil), proof)
		},
		rule: acceptance.RuleSignature, class: signers.Untimed, says: []string{"sigrid@example.org", "transparency log entry"},
	},
	{
		name: "Sigstore certificate used after its ten minutes",
		try: func(w *world, legit bool) {
			proof := x509test.Proof{Log: w.witness, At: minted().Add(time.Hour), Claimed: minted().Add(time.Minute)}
			if legit {
				proof.At = minted().Add(2 * time.Minute)
			}
			w.certify(w.sigrid(w.t, nil), proof)
		},
		rule: acceptance.RuleSignature, class: signers.Untimed, says: []string{"sigrid@example.org", "outside certificate validity"},
	},
	{
		name: "the same address at another identity provider",
		try: func(w *world, legit bool) {
			w.certify(w.sigrid(w.t, func(l *x509test.Leaf) {
				if !legit {
					l.Issuer = "https://idp.evil.example"
				}
			}), logged(w.witness))
		},
		rule: acceptance.RuleSignature, class: signers.UnknownKey, says: []string{"https://idp.evil.example", "does not list"},
	},
}
