{{/* Nothing; fails on Jobs that Kubernetes would refuse or that could not end as they say. */}}
{{- define "extraction-pipeline.validateJobs" -}}
{{- with .Values.cronjob }}
{{- if .enabled }}
{{- include "extraction-pipeline.validateSchedule" .schedule }}
{{- with .timeZone }}
{{- include "extraction-pipeline.validateTimeZone" (dict "files" $.Files "zone" .) }}
{{- end }}
{{- if .maxDuration }}
{{- $seconds := include "extraction-pipeline.seconds" .maxDuration | float64 }}
{{- if and .activeDeadlineSeconds (ge $seconds (float64 .activeDeadlineSeconds)) }}
{{- fail (printf "cronjob.maxDuration: got %s, need less than cronjob.activeDeadlineSeconds (%v)" .maxDuration .activeDeadlineSeconds) }}
{{- end }}
{{- if le $seconds (float64 .startingDeadlineSeconds) }}
{{- fail (printf "cronjob.maxDuration: got %s, need more than cronjob.startingDeadlineSeconds (%v): it counts from the scheduled time, and a run that starts late would have no time left" .maxDuration .startingDeadlineSeconds) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.backfill }}
{{- if and (regexMatch "(^| )--max-duration" (join " " .extraArgs)) (not (regexMatch "(^| )--incomplete-exit[= ]3" (join " " .extraArgs))) }}
{{- fail "backfill.extraArgs: got --max-duration, with which a shard that stops early counts as done; need --incomplete-exit=3 beside it, which uses up tries, or limit the Job by backfill.activeDeadlineSeconds, and the next one resumes" }}
{{- end }}
{{- if and .chunks (lt (int .shards) 1) }}
{{- fail (printf "backfill.chunks: got %q, need a number of chunks, or FIRST-LAST as `pipeline plan` says" (toString .chunks)) }}
{{- end }}
{{- if and .enabled .maxFailedIndexes (gt (float64 .maxFailedIndexes) (float64 .shards)) }}
{{- fail (printf "backfill.maxFailedIndexes: got %v, need at most backfill.shards (%v)" .maxFailedIndexes .shards) }}
{{- end }}
{{- if and .enabled (include "extraction-pipeline.persistent" $) (gt (min (int .shards) (int (default .shards .parallelism))) 1) (has "ReadWriteOncePod" (include "extraction-pipeline.accessModes" $ | fromYamlArray)) }}
{{- fail (printf "backfill.parallelism: got %v with persistence.accessModes ReadWriteOncePod, which lets one pod run; need 1, or ReadWriteMany" .parallelism) }}
{{- end }}
{{- end }}
{{- $modes := .Values.persistence.accessModes | default list }}
{{- if and (has "ReadWriteOncePod" $modes) (gt (len $modes) 1) }}
{{- fail (printf "persistence.accessModes: got %s, need ReadWriteOncePod alone, or the others" (join ", " $modes)) }}
{{- end }}
{{- range $name := list "cronjob" "backfill" }}
{{- if and (get $.Values $name).managedBy (semverCompare "<1.32.0-0" $.Capabilities.KubeVersion.Version) }}
{{- fail (printf "%s.managedBy: got %q, need Kubernetes 1.32 or later (this is %s)" $name (get $.Values $name).managedBy $.Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A time zone by its name in the IANA list; takes files and zone. */}}
{{- define "extraction-pipeline.validateTimeZone" -}}
{{- $zones := .files.Get "files/time-zones.txt" | trim | splitList "\n" }}
{{- if not (has .zone $zones) }}
{{- $start := regexFind "^([A-Za-z_]+/)?.{0,2}" .zone | lower }}
{{- $near := list }}
{{- range $zones }}
{{- if and (hasPrefix $start (lower .)) (lt (len $near) 8) }}
{{- $near = append $near . }}
{{- end }}
{{- end }}
{{- fail (printf "cronjob.timeZone: got %q, need a name of the IANA list, such as %s" .zone (empty $near | ternary "Europe/Berlin or Etc/UTC" (join ", " $near))) }}
{{- end }}
{{- end }}

{{/* A schedule as Kubernetes reads it: five fields within their bounds that meet on some day; takes the text. */}}
{{- define "extraction-pipeline.validateSchedule" -}}
{{- $schedule := . }}
{{- if not (regexMatch "^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$" .) }}
{{- $fields := splitList " " (regexReplaceAll "\\s+" (trim .) " ") }}
{{- if ne (len $fields) 5 }}
{{- fail (printf "cronjob.schedule: got %q, need five fields (minute hour day month weekday) or a word such as @daily" .) }}
{{- end }}
{{- $months := dict "JAN" 1 "FEB" 2 "MAR" 3 "APR" 4 "MAY" 5 "JUN" 6 "JUL" 7 "AUG" 8 "SEP" 9 "OCT" 10 "NOV" 11 "DEC" 12 }}
{{- $days := dict "SUN" 0 "MON" 1 "TUE" 2 "WED" 3 "THU" 4 "FRI" 5 "SAT" 6 }}
{{- $bounds := list (list "minute" 0 59 dict) (list "hour" 0 23 dict) (list "day" 1 31 dict) (list "month" 1 12 $months) (list "weekday" 0 6 $days) }}
{{- $sets := dict }}
{{- range $n, $field := $fields }}
{{- $bound := index $bounds $n }}
{{- $set := include "extraction-pipeline.scheduleField" (dict "schedule" $schedule "field" $field "bound" $bound) | fromJson }}
{{- $_ := set $sets (index $bound 0) $set.numbers }}
{{- $_ := set $sets (printf "any-%s" (index $bound 0)) $set.any }}
{{- end }}
{{- /* a day and a weekday that are both restricted are an either-or */}}
{{- $possible := not (index $sets "any-weekday") }}
{{- range $month := $sets.month }}
{{- range $day := $sets.day }}
{{- $possible = or $possible (le (int $day) (index (list 31 29 31 30 31 30 31 31 30 31 30 31) (sub (int $month) 1 | int))) }}
{{- end }}
{{- end }}
{{- if not $possible }}
{{- fail (printf "cronjob.schedule: got %q, a day that no such month has: it would never run" $schedule) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The numbers that a field of a schedule names, and whether it names any, in JSON; takes schedule, field, and bound: the
     field's name, lowest and highest number, and words. */}}
{{- define "extraction-pipeline.scheduleField" -}}
{{- $name := index .bound 0 }}
{{- $low := index .bound 1 }}
{{- $high := index .bound 2 }}
{{- $words := index .bound 3 }}
{{- $refusal := printf "cronjob.schedule: got %q, whose %s %q is not within %d to %d" .schedule $name .field $low $high }}
{{- $numbers := list }}
{{- $any := false }}
{{- range $item := splitList "," .field }}
{{- if not (regexMatch "^([*?]|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?$" $item) }}
{{- fail $refusal }}
{{- end }}
{{- $parts := splitList "/" $item }}
{{- $step := len $parts | eq 2 | ternary (last $parts) "1" | int }}
{{- $ends := splitList "-" (first $parts) }}
{{- $from := first $ends | upper }}
{{- $to := or (gt (len $ends) 1) (eq (len $parts) 1) | ternary (last $ends | upper) (toString $high) }}
{{- if has $from (list "*" "?") }}
{{- $from = toString $low }}
{{- $to = toString $high }}
{{- $any = or $any (eq $step 1) }}
{{- end }}
{{- $from = get $words $from | default $from | toString }}
{{- $to = get $words $to | default $to | toString }}
{{- if eq $name "weekday" }}
{{- $from = ternary "0" $from (eq $from "SUN") }}
{{- $to = ternary "0" $to (eq $to "SUN") }}
{{- end }}
{{- if not (and (regexMatch "^[0-9]{1,4}$" $from) (regexMatch "^[0-9]{1,4}$" $to) (gt $step 0)) }}
{{- fail $refusal }}
{{- end }}
{{- $from = regexReplaceAll "^0+([0-9])" $from "${1}" | int }}
{{- $to = regexReplaceAll "^0+([0-9])" $to "${1}" | int }}
{{- if or (lt $from $low) (gt $to $high) (gt $from $to) }}
{{- fail $refusal }}
{{- end }}
{{- range $number := untilStep $from (add $to 1 | int) $step }}
{{- $numbers = append $numbers $number }}
{{- end }}
{{- end }}
{{- dict "numbers" $numbers "any" $any | toJson }}
{{- end }}

{{/* The seconds of a time such as 5h or 1h30m. */}}
{{- define "extraction-pipeline.seconds" -}}
{{- $units := dict "d" 86400 "h" 3600 "m" 60 "s" 1 }}
{{- $sum := 0 }}
{{- range $part := regexFindAll "[0-9]+[dhms]" . -1 }}
{{- $sum = add $sum (mul (regexFind "[0-9]+" $part | int) (get $units (regexFind "[dhms]" $part))) }}
{{- end }}
{{- $sum }}
{{- end }}
