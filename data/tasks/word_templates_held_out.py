"""The templates of word problems that are never trained on: those of validation and of test."""

from __future__ import annotations

from data.tasks.word_templates import parse_templates

VALIDATION = parse_templates("""
boxes_of_things | shopping | a 3-10, b 2-9, c 12-80
A box of {a} {things} costs {b} dollars. {person} needs {c} {things}. How many dollars do the
boxes cost?
x = c / a | The number of boxes is {x}.
y = x * b | They cost {y} dollars.

price_of_a_ticket | shopping | a 20-90, b 2-8, c 2-30
{person} had {a} dollars, bought {b} tickets and has {c} dollars left. How many dollars does a
ticket cost?
x = a - c | The tickets cost {x} dollars.
y = x / b | One ticket costs {y} dollars.

bus_stops | travel | a 15-40, b 3-14, c 2-15, d 2-15
A bus has {a} people in it. At the first stop {b} get off and {c} get on. At the second stop {d}
more get on. How many people are in the bus then?
x = a - b | After some get off there are {x} people.
y = x + c | When the bus leaves the first stop there are {y} people.
z = y + d | After the second stop there are {z} people.

training_weeks | travel | a 2-6, b 3-12, c 2-3
{person} runs {a} kilometers on each of 5 days of a week and {b} kilometers on Saturday. How many
kilometers is that in {c} weeks?
x = a * 5 | The 5 days are {x} kilometers.
y = x + b | A week is {y} kilometers.
z = y * c | All the weeks are {z} kilometers.

teacher_and_boxes | sharing | a 4-9, b 3-9, c 2-12, d 2-6
Each of {a} children brings {b} {things}. They give {c} of them to the teacher and put the rest
equally into {d} boxes. How many {things} are in each box?
x = a * b | The children bring {x} {things}.
y = x - c | Without those of the teacher there are {y} {things}.
z = y / d | In each box are {z} {things}.

younger_sibling | ages | a 10-45, b 2-9
{person} is {a} years old and {other} is {b} years younger. How old are they together?
x = a - b | The age of {other} is {x} years.
y = a + x | Together they are {y} years old.

faster_typist | work | a 3-12, b 2-8, c 2-5
{person} types {a} pages per hour, and {other} types {b} pages per hour more than {person}. How
many pages does {other} type in {c} hours?
x = a + b | In one hour {other} types {x} pages.
y = x * c | In all these hours that is {y} pages.

water_in_bottles | mixtures | a 8-20, b 2-15, c 2-7
A can holds {a} liters. It is filled with {b} liters of juice and then to the top with water. How
many liters of water are in {c} such cans?
x = a - b | In one can are {x} liters of water.
y = x * c | In all the cans are {y} liters of water.

twice_both_colors | collections | a 4-25, b 4-25
{person} has {a} red and {b} blue {things}. {other} has twice as many {things} as {person}. How
many {things} does {other} have?
x = a + b | The number that {person} has is {x}.
y = x * 2 | The number that {other} has is {y}.

half_for_others | savings | a 4-14, b 2-7
{person} earns {a} dollars per day for {b} days and gives half of the money to {other}. How many
dollars does {person} keep?
x = a * b | In these days {person} earns {x} dollars.
y = x / 2 | Half of it is {y} dollars.

pencils_for_all | school | a 3-9, b 6-12, c 2-4, d 5-15
A teacher has {a} packs of {b} pencils and gives {c} pencils to each of {d} children. How many
pencils are left?
x = a * b | In the packs are {x} pencils.
y = c * d | The children get {y} pencils.
z = x - y | What is left is {z} pencils.

two_fields | garden | a 8-25, b 2-7, c 2-3
One field gives {a} sacks of potatoes, and a second one gives {b} sacks fewer. A sack is sold for
{c} dollars. How many dollars do all the sacks bring in?
x = a - b | The second field gives {x} sacks.
y = a + x | Both fields give {y} sacks.
z = y * c | They bring in {z} dollars.
""")

TEST = parse_templates("""
price_by_number | shopping | a 2-9, b 6-60, c 2-12
If {a} {things} cost {b} dollars, how many dollars do {c} {things} cost?
x = b / a | One costs {x} dollars.
y = x * c | Then {c} of them cost {y} dollars.

one_smaller | shopping | a 2-7, b 5-12, c 1-6
A large vase costs {b} dollars, and a small one is {c} dollars cheaper. {person} buys {a} large
vases and one small vase. How many dollars does {person} pay?
x = a * b | The large vases cost {x} dollars.
y = b - c | The small vase costs {y} dollars.
z = x + y | Together that is {z} dollars.

with_the_current | travel | a 6-25, b 2-9, c 2-5
A boat goes {a} kilometers per hour in still water. The current of the river makes it {b}
kilometers per hour faster. How many kilometers does it go in {c} hours with the current?
x = a + b | With the current it goes {x} kilometers per hour.
y = x * c | In these hours it goes {y} kilometers.

rest_of_the_drive | travel | a 50-99, b 8-30, c 8-30, d 2-6
The sea is {a} kilometers away. {person} drives {b} kilometers before lunch and {c} kilometers
after lunch, and the rest in {d} hours at a constant speed. How many kilometers per hour is this
speed?
x = b + c | Up to then {person} has driven {x} kilometers.
y = a - x | The rest is {y} kilometers.
z = y / d | The speed is {z} kilometers per hour.

burnt_cookies | sharing | a 2-7, b 6-14, c 2-12, d 2-8
{person} bakes {a} trays of {b} cookies. Unfortunately {c} cookies burn. The others go to {d}
neighbors in equal parts. How many cookies does each neighbor get?
x = a * b | On the trays are {x} cookies.
y = x - c | Not burnt are {y} cookies.
z = y / d | Each neighbor gets {z} cookies.

equal_parts | sharing | a 4-45, b 4-45
{person} picks {a} {things} and {other} picks {b}. They put them together and take equal parts.
How many {things} does each of the two take?
x = a + b | Together they have {x} {things}.
y = x / 2 | Each of them takes {y} {things}.

age_now | ages | a 2-9, b 8-25, c 2-4
In {a} years {person} will be {b} years old. {other} is {c} times as old as {person} is now. How
old is {other}?
x = b - a | The age of {person} is {x} years.
y = x * c | The age of {other} is {y} years.

years_between | ages | a 4-20, b 2-5
{person} is {a} years old, and {other} is {b} times as old. How many years older than {person} is
{other}?
x = a * b | The age of {other} is {x} years.
y = x - a | The difference is {y} years.

same_speed | work | a 6-60, b 2-6, c 2-9
{person} packs {a} parcels in {b} hours. How many parcels does {person} pack in {c} hours at the
same speed?
x = a / b | In one hour {person} packs {x} parcels.
y = x * c | In {c} hours that is {y} parcels.

order_of_chairs | work | a 3-9, b 3-9, c 2-5, d 40-99
A workshop builds {a} chairs every morning and {b} chairs every afternoon. It has an order for {d}
chairs. How many chairs are missing after {c} days?
x = a + b | In one day it builds {x} chairs.
y = x * c | In {c} days it builds {y} chairs.
z = d - y | What is missing is {z} chairs.

pot_of_cream | mixtures | a 6-30, b 4-20, c 2-12, d 2-6
A cook puts {a} cups of milk and {b} cups of cream into a pot. While it cooks, {c} cups are lost
as steam. The rest fills {d} bowls equally. How many cups are in each bowl?
x = a + b | At first there are {x} cups.
y = x - c | After cooking there are {y} cups.
z = y / d | In each bowl are {z} cups.

sacks_of_rice | mixtures | a 2-9, b 2-9, c 2-6, d 3-30
A sack holds {a} kilograms of red rice and {b} kilograms of white rice. A family buys {c} such
sacks and eats {d} kilograms. How many kilograms of rice are left?
x = a + b | One sack holds {x} kilograms.
y = x * c | The sacks hold {y} kilograms.
z = y - d | After eating there are {z} kilograms.

shells_on_the_beach | collections | a 4-15, b 2-4, c 3-20
{person} finds {a} shells in the morning and {b} times as many in the afternoon, and gives {c} of
all these shells to {other}. How many shells does {person} keep?
x = a * b | In the afternoon there are {x} shells.
y = a + x | On the whole day there are {y} shells.
z = y - c | The rest is {z} shells.

museum | collections | a 3-9, b 4-10, c 3-20
A museum has {a} rooms with {b} pictures each, and a hall with {c} pictures. How many pictures
does the museum have?
x = a * b | In the rooms are {x} pictures.
y = x + c | With the hall there are {y} pictures.

pocket_money | savings | a 6-20, b 2-12, c 3-9
Every week {person} gets {a} dollars and spends {b} of them. How many dollars does {person} save
in {c} weeks?
x = a - b | In one week {person} saves {x} dollars.
y = x * c | In {c} weeks that is {y} dollars.

coins_and_notes | savings | a 4-15, b 2-5, c 5-40, d 5-60
{person} has {a} coins of {b} dollars each and {c} dollars in notes, and buys a ball for {d}
dollars. How many dollars does {person} have left?
x = a * b | The coins are worth {x} dollars.
y = x + c | With the notes there are {y} dollars.
z = y - d | After buying the ball there are {z} dollars.

tables_in_class | school | a 15-60, b 2-12, c 2-8
Of {a} children {b} are ill. The others sit down at tables for {c} children, and every table is
full. How many tables are there?
x = a - b | Not ill are {x} children.
y = x / c | They sit at {y} tables.

school_play | school | a 5-25, b 5-25, c 2-4
A class sells {a} tickets for its play on Friday and {b} tickets on Saturday. A ticket costs {c}
dollars. How many dollars does the class take in?
x = a + b | On both days that is {x} tickets.
y = x * c | They bring in {y} dollars.

tiles_per_hour | garden | a 3-9, b 4-11, c 3-12
A path has {b} rows of {a} tiles each. {person} lays {c} tiles per hour. How many hours does the
path take?
x = b * a | The path has {x} tiles.
y = x / c | It takes {y} hours.

seeds_and_birds | garden | a 40-99, b 2-6, c 3-10, d 2-20
{person} has {a} seeds and puts {b} of them into each of {c} pots. Then birds eat {d} of the other
seeds. How many seeds are left?
x = b * c | In the pots are {x} seeds.
y = a - x | Not in pots are {y} seeds.
z = y - d | After the birds have eaten there are {z} seeds.
""")
