"""E-mail: messages of mailboxes, .eml and Outlook files, and the RTF and old encodings that their bodies come in."""
