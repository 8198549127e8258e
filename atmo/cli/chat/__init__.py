"""`atmo chat`: `session` is the conversation, `slash` what is typed with a slash, `stream` Markdown while it comes,
`keyboard` the line where one types, `command` all of it together."""
