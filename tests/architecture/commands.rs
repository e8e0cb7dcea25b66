//! Who may name a command of the binary.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The folders of the libraries, which do not know how the binary calls its commands.
pub(crate) const LIBRARIES: [&str; 5] =
    ["crates/base/", "crates/core/", "crates/adapters/", "crates/services/", "crates/roles/"];

/// Only the binary knows its commands. A library's message that names one in backticks would be wrong as soon as the
/// command is renamed. Libraries give remedies as data (`tandem_model::Remedy`) instead.
///
/// The check reads every string literal of a file, also those of attributes and macros. It leaves out comments and
/// what only tests compile.
pub(crate) fn named_commands(file: &str, text: &str) -> Vec<String> {
    let tokens: TokenStream = text.parse().unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut found = Vec::new();
    literals(tokens, &mut found);
    let commands = found.iter().filter_map(|text| command(text));
    commands.map(|command| format!("{file} names the command `tandem {command}`")).collect()
}

/// The subcommand that follows "`tandem ".
fn command(text: &str) -> Option<&str> {
    let words = text.split("`tandem ").skip(1);
    let mut named =
        words.map(|rest| rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default());
    named.find(|word| !word.is_empty())
}

fn literals(tokens: TokenStream, found: &mut Vec<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if matches!(tokens.peek(), Some(TokenTree::Punct(inner)) if inner.as_char() == '!') {
                    tokens.next();
                }
                let Some(TokenTree::Group(attribute)) = tokens.next() else { continue };
                if starts_with(&attribute, "doc") {
                    continue;
                }
                if attribute.stream().to_string().replace(' ', "") == "cfg(test)" {
                    // The item ends with its body, or without one.
                    for token in tokens.by_ref() {
                        match token {
                            TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => break,
                            TokenTree::Punct(end) if end.as_char() == ';' => break,
                            _ => {}
                        }
                    }
                    continue;
                }
                literals(attribute.stream(), found);
            }
            TokenTree::Group(group) => literals(group.stream(), found),
            TokenTree::Literal(literal) => {
                found.extend(syn::parse_str::<syn::LitStr>(&literal.to_string()).map(|text| text.value()));
            }
            TokenTree::Punct(_) | TokenTree::Ident(_) => {}
        }
    }
}

fn starts_with(group: &Group, word: &str) -> bool {
    matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(first)) if first == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_a_message_is_found_wherever_the_message_stands() {
        for text in [
            r#"const SAID: &str = "go on with `tandem resnapshot`";"#,
            r#"#[error("the log has a gap: `tandem resnapshot` continues it")] struct Gap;"#,
            r##"fn f() { println!("{}", g(r#"run `tandem verify --full`"#)); }"##,
            "fn f() -> &'static str { \"go on with \\\n   `tandem run`\" }",
        ] {
            let found = named_commands("src/lib.rs", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with("src/lib.rs names the command `tandem "), "{found:?}");
        }
    }

    #[test]
    fn comments_tests_and_other_words_are_left_out() {
        let text = r#"
            //! The opposite of `tandem run`.
            /// See `tandem verify --full`.
            #[cfg(test)] mod tests { const SAID: &str = "`tandem run`"; }
            #[cfg(test)] use other::Thing;
            // `tandem check`
            const GROUP: &str = "`tandem.apply`, or `tandem ` alone";
        "#;
        assert!(named_commands("src/lib.rs", text).is_empty());
    }
}
