package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/cel-go/cel"
)

const (
	// celCost and celTime bound what an expression may cost. A comparison in a
	// list of ten thousand packages costs about a hundred thousand.
	celCost = 5_000_000
	celTime = 2 * time.Second
)

// predicateTypes are the short names that cosign has for predicate types.
var predicateTypes = map[string]string{
	"custom":           "https://cosign.sigstore.dev/attestation/v1",
	"cyclonedx":        "https://cyclonedx.org/bom",
	"link":             "https://in-toto.io/Link/v1",
	"openvex":          "https://openvex.dev/ns",
	"slsaprovenance":   "https://slsa.dev/provenance/v0.2",
	"slsaprovenance02": "https://slsa.dev/provenance/v0.2",
	"slsaprovenance1":  "https://slsa.dev/provenance/v1",
	"spdx":             "https://spdx.dev/Document",
	"spdxjson":         "https://spdx.dev/Document",
	"vuln":             "https://cosign.sigstore.dev/attestation/vuln/v1",
}

// anyStatement is content with every statement of the demanded type.
func anyStatement([]byte) error { return nil }

// compileCEL makes a judge of an expression over predicate, predicateType and
// statement.
func compileCEL(expression string) (func([]byte) error, error) {
	env, err := cel.NewEnv(
		cel.Variable("predicate", cel.DynType),
		cel.Variable("predicateType", cel.StringType),
		cel.Variable("statement", cel.DynType),
	)
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		return nil, issues.Err()
	}
	if out := ast.OutputType(); !out.IsExactType(cel.BoolType) && !out.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("the expression is %s and not a condition", out)
	}
	program, err := env.Program(ast, cel.CostLimit(celCost), cel.InterruptCheckFrequency(1000))
	if err != nil {
		return nil, err
	}
	return func(statement []byte) error { return evaluate(program, statement) }, nil
}

func evaluate(program cel.Program, text []byte) error {
	var statement map[string]any
	if err := json.Unmarshal(text, &statement); err != nil {
		return fmt.Errorf("the statement cannot be read: %w", err)
	}
	predicateType, _ := statement["predicateType"].(string)
	ctx, cancel := context.WithTimeout(context.Background(), celTime)
	defer cancel()
	value, _, err := program.ContextEval(ctx, map[string]any{
		"predicate": statement["predicate"], "predicateType": predicateType, "statement": statement,
	})
	if err != nil {
		return fmt.Errorf("the policy cannot be evaluated on its predicate: %w", err)
	}
	if ok, isBool := value.Value().(bool); !isBool || !ok {
		return errors.New("its predicate does not satisfy the policy")
	}
	return nil
}
