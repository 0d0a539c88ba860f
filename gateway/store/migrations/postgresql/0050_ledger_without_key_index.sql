-- Reports and budgets look for rows by time; nothing asks for a key's rows by its id. Every row paid for this index.

DROP INDEX usage_entry_by_key;
