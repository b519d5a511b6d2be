package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// TestReasonsAreDocumented demands that docs/configuration.md has every reason of a condition that follows from configuration and requests.
func TestReasonsAreDocumented(t *testing.T) {
	docs, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"fault.go", "../ipam/reason.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != "Reason" && typ.Name != "ConditionType" {
				return false
			}
			found++
			word := strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`)
			if !strings.Contains(string(docs), "`"+word+"`") {
				t.Errorf("%s: docs/configuration.md does not say what %s stands for", file, word)
			}
			return false
		})
		if found == 0 {
			t.Errorf("%s has no reasons", file)
		}
	}
}
