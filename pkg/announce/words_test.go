package announce

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

// TestWords fails when somebody adds a reason and no words for it.
func TestWords(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	reasons := 0
	ast.Inspect(file, func(n ast.Node) bool {
		literal, ok := n.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		reason, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		reasons++
		if words[Reason(reason)].What == "" {
			t.Errorf("there are no words for %s", reason)
		}
		return true
	})
	if reasons != len(words) {
		t.Errorf("there are %d reasons and words for %d", reasons, len(words))
	}
}
